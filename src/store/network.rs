//! Which file systems cannot be trusted with locks and syncs.

use std::path::Path;

/// The name of the network file system that `path`, or the nearest folder above it that is there, lies on.
pub(super) fn network_file_system(path: &Path) -> Option<&'static str> {
    let absolute = std::path::absolute(path).ok()?;
    let stat = absolute.ancestors().find_map(|p| rustix::fs::statfs(p).ok())?;
    name_of(stat.f_type as u32)
}

/// The numbers are those of `statfs(2)` and of the file systems' own headers.
fn name_of(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517B | 0xFE53_4D42 => "SMB",
        0xFF53_4D42 => "CIFS",
        0x0BD0_0BD0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0x00C3_6400 => "Ceph",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x0102_1997 => "9P",
        0x7461_636F => "OCFS2",
        0x0116_1970 => "GFS2",
        0xAAD7_AAEA => "PanFS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_have_names() {
        assert_eq!(name_of(0x6969), Some("NFS"));
        assert_eq!(name_of(0xFF53_4D42), Some("CIFS"));
        assert_eq!(name_of(0xEF53), None, "ext4");
    }

    #[test]
    fn a_folder_not_yet_there_is_judged_by_the_one_above() {
        assert_eq!(network_file_system(Path::new("/proc/no/such/folder")), None);
    }
}
