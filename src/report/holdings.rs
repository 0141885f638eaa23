//! What a store holds, what of it is damaged, and what a repair kept.

use crate::data::bytes_in_words;
use crate::store::{Collected, Inspection, Repaired};

use super::phrase::count;

/// What is there of each stage and of the sources; stages without results only if `all`.
pub fn held(found: &Inspection, all: bool) -> String {
    let mut out = String::new();
    for stage in found.stages.iter().filter(|stage| all || stage.segments > 0) {
        let version = &stage.version[..8];
        out.push_str(&format!(
            "{} {version}: {} items, {} failed, {} segments, {} bytes\n",
            stage.stage, stage.items, stage.failed, stage.segments, stage.bytes
        ));
    }
    out.push_str(&format!("sources: {} batches, {} bytes\n", found.roster_batches, found.roster_bytes));
    out
}

/// What can be read, and what is damaged.
pub fn verified(found: &Inspection) -> String {
    let damaged: String = found.damaged.iter().map(|what| format!("damaged: {what}\n")).collect();
    let end = if damaged.is_empty() { "everything can be read\n" } else { "" };
    format!("{}{damaged}{end}", held(found, true))
}

/// What a repair kept, what is lost, and where the damaged file is.
pub fn repaired(repaired: &Repaired) -> String {
    let Some(aside) = &repaired.set_aside else {
        return "everything can be read; nothing was changed\n".to_string();
    };
    let damaged: String = repaired.kept.damaged.iter().map(|what| format!("damaged: {what}\n")).collect();
    let kept: String = held(&repaired.kept, false).lines().map(|line| format!("kept: {line}\n")).collect();
    format!("{damaged}{kept}the damaged file is now {}\n", aside.display())
}

/// What was dropped, or would be.
pub fn collected(collected: &Collected, dry_run: bool) -> String {
    let Collected { of_versions, of_items, sources, bytes_before, bytes_after } = collected;
    let mut parts = Vec::new();
    let mut part = |n: u64, noun: &str, of: &str| {
        if n > 0 {
            parts.push(format!("{}{of}", count(n, noun)));
        }
    };
    part(*of_versions, "result", " of earlier versions");
    part(*of_items, "result", " that no item has any more");
    part(*sources, "source", "");
    if parts.is_empty() {
        return "nothing to drop\n".into();
    }
    let dropped = parts.join(", ");
    if dry_run {
        return format!("would drop {dropped}\n");
    }
    format!(
        "dropped {dropped}; the store had {}, now {}\n",
        bytes_in_words(*bytes_before),
        bytes_in_words(*bytes_after)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StageHolding;

    fn damaged() -> Inspection {
        let stage = StageHolding {
            stage: "work".into(),
            version: "0123456789abcdef".into(),
            segments: 2,
            items: 100,
            failed: 1,
            bytes: 4000,
        };
        let damaged = vec!["stage work (version 01234567): 50 of 150 outcomes are lost".to_string()];
        Inspection { stages: vec![stage], roster_batches: 1, roster_bytes: 900, damaged }
    }

    #[test]
    fn damage_is_told() {
        insta::assert_snapshot!(verified(&damaged()), @r"
        work 01234567: 100 items, 1 failed, 2 segments, 4000 bytes
        sources: 1 batches, 900 bytes
        damaged: stage work (version 01234567): 50 of 150 outcomes are lost
        ");
        assert!(verified(&Inspection::default()).ends_with("everything can be read\n"));
    }

    #[test]
    fn a_repair_tells_what_it_kept() {
        insta::assert_snapshot!(super::repaired(&Repaired { kept: damaged(), set_aside: Some("s.damaged-1".into()) }), @r"
        damaged: stage work (version 01234567): 50 of 150 outcomes are lost
        kept: work 01234567: 100 items, 1 failed, 2 segments, 4000 bytes
        kept: sources: 1 batches, 900 bytes
        the damaged file is now s.damaged-1
        ");
    }
}
