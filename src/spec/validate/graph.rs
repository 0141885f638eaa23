//! The order of stages: cycles are printed whole.

use super::Builder;
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::yaml::Node;

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    No,
    /// On the way that is being followed.
    Open,
    Done,
}

impl Builder<'_> {
    /// Tells each cycle that a walk along inputs and `after` closes.
    pub(super) fn cycles(&mut self, stages: &[(Node, Node)]) {
        let mut before: Vec<Vec<(usize, Span)>> = vec![Vec::new(); stages.len()];
        for &(from, to, at) in &self.edges {
            before[to].push((from, at));
        }
        let mut seen = vec![Seen::No; stages.len()];
        for start in 0..stages.len() {
            if seen[start] != Seen::No {
                continue;
            }
            // The way so far, each with the number of its predecessors that have been followed.
            let mut way = vec![(start, 0)];
            seen[start] = Seen::Open;
            while let Some(&(stage, followed)) = way.last() {
                let Some(&(next, at)) = before[stage].get(followed) else {
                    seen[stage] = Seen::Done;
                    way.pop();
                    continue;
                };
                if let Some(last) = way.last_mut() {
                    last.1 += 1;
                }
                match seen[next] {
                    Seen::Done => {}
                    Seen::No => {
                        seen[next] = Seen::Open;
                        way.push((next, 0));
                    }
                    Seen::Open => {
                        let from = way.iter().position(|(s, _)| *s == next).unwrap_or(0);
                        let cycle: Vec<&str> = way[from..].iter().map(|(s, _)| stages[*s].0.key_text()).collect();
                        self.cycle(&cycle, at);
                    }
                }
            }
        }
    }

    /// `cycle` goes against the data's way: each needs the next, the last needs the first.
    fn cycle(&mut self, cycle: &[&str], at: Span) {
        let mut names: Vec<&str> = cycle.iter().rev().copied().collect();
        names.extend(names.first().copied());
        let message = format!("these stages wait for each other: {}", names.join(" -> "));
        let help = match cycle {
            [only] => format!("`{only}` cannot have itself as its input"),
            _ => "no stage of them could ever start: cut the circle somewhere".into(),
        };
        self.mistakes.push(Diagnostic::new(at, message).help(help));
    }
}
