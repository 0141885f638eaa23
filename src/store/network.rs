//! Which file systems cannot be trusted with locks and syncs.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};

/// The name of the network file system that `path`, or the nearest folder above it that is there, lies on.
pub(super) fn network_file_system(path: &Path) -> Option<&'static str> {
    let absolute = std::path::absolute(path).ok()?;
    let (there, stat) = absolute.ancestors().find_map(|p| Some((p, rustix::fs::statfs(p).ok()?)))?;
    if stat.f_type as u32 != FUSE {
        return name_of(stat.f_type as u32);
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    name_in_user_space(&mounts, there.metadata().ok()?.dev())
}

/// Any file system of a program; only the table of mounts says which.
const FUSE: u32 = 0x6573_5546;

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
        0x2003_0528 => "OrangeFS",
        0x1803_1977 => "WekaFS",
        0x564C => "NCP",
        _ => return None,
    })
}

/// The name of the network file system which a program serves on a device; none if it is a local one.
fn name_in_user_space(mounts: &str, device: u64) -> Option<&'static str> {
    let device = format!("{}:{}", major(device), minor(device));
    let kind = mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        (mount.split(' ').nth(2)? == device).then(|| kind.split(' ').next())?
    })?;
    Some(match kind.strip_prefix("fuse.")? {
        "sshfs" => "sshfs",
        "glusterfs" => "GlusterFS",
        "ceph" | "ceph-fuse" => "Ceph",
        "s3fs" | "mount-s3" | "goofys" | "gcsfuse" | "blobfuse" | "blobfuse2" => "an object store",
        "rclone" => "rclone",
        "juicefs" | "JuiceFS" => "JuiceFS",
        "cvmfs2" => "CernVM-FS",
        "davfs2" => "WebDAV",
        "curlftpfs" => "FTP",
        "mfs" | "moosefs" | "lizardfs" => "MooseFS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_have_names() {
        let known: [(u32, &str); 18] = [
            (0x6969, "NFS"),
            (0x517B, "SMB"),
            (0xFE53_4D42, "SMB"),
            (0xFF53_4D42, "CIFS"),
            (0x0BD0_0BD0, "Lustre"),
            (0x4750_4653, "GPFS"),
            (0x1983_0326, "BeeGFS"),
            (0x00C3_6400, "Ceph"),
            (0x5346_414F, "AFS"),
            (0x6B41_4653, "AFS"),
            (0x7375_7245, "Coda"),
            (0x0102_1997, "9P"),
            (0x7461_636F, "OCFS2"),
            (0x0116_1970, "GFS2"),
            (0xAAD7_AAEA, "PanFS"),
            (0x2003_0528, "OrangeFS"),
            (0x1803_1977, "WekaFS"),
            (0x564C, "NCP"),
        ];
        for (magic, name) in known {
            assert_eq!(name_of(magic), Some(name));
        }
        // ext4, XFS, btrfs, tmpfs, overlay, ZFS, f2fs.
        for local in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1, 0xF2F5_2010] {
            assert_eq!(name_of(local), None);
        }
    }

    #[test]
    fn what_a_program_serves_is_told_by_the_mounts() {
        let mounts = "\
36 35 98:0 / / rw,noatime master:1 - ext4 /dev/root rw
40 36 0:51 / /mnt/far rw,nosuid shared:7 - fuse.sshfs host:/data rw,user_id=1000
41 36 0:52 / /mnt/usb rw - fuseblk /dev/sdb1 rw
42 36 0:53 / /mnt/pool rw - fuse.mergerfs pool rw
43 36 0:54 / /mnt/gluster rw - fuse.glusterfs host:/vol rw
";
        let device = |minor| rustix::fs::makedev(0, minor);
        assert_eq!(name_in_user_space(mounts, device(51)), Some("sshfs"));
        assert_eq!(name_in_user_space(mounts, device(54)), Some("GlusterFS"));
        for local in [52, 53, 99] {
            assert_eq!(name_in_user_space(mounts, device(local)), None);
        }
    }

    #[test]
    fn a_folder_not_yet_there_is_judged_by_the_one_above() {
        assert_eq!(network_file_system(Path::new("/proc/no/such/folder")), None);
    }
}
