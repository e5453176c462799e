//! The user that QEMU runs as, from the files that describe users. Nothing else is asked: this program may
//! start before the network does.

use std::path::Path;

use plasmavmc_guard::wire::Owner;

/// Where users and groups are described.
pub struct UserFiles<'a> {
    pub passwd: &'a Path,
    pub group: &'a Path,
}

impl UserFiles<'static> {
    pub fn own() -> Self {
        Self {
            passwd: Path::new("/etc/passwd"),
            group: Path::new("/etc/group"),
        }
    }
}

/// The user of this name with all its groups.
pub fn find(name: &str, files: &UserFiles<'_>) -> Result<Owner, String> {
    let read =
        |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    let (passwd, group) = (read(files.passwd)?, read(files.group)?);
    let unknown = || format!("there is no user {name:?} in {}", files.passwd.display());
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .ok_or_else(unknown)?;
    let number = |at: usize| entry.get(at).and_then(|text| text.parse::<u32>().ok());
    let (Some(uid), Some(gid)) = (number(2), number(3)) else {
        return Err(format!(
            "the line of {name:?} in {} is malformed",
            files.passwd.display()
        ));
    };
    let mut groups: Vec<u32> = group
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let is_member = fields.get(3)?.split(',').any(|member| member == name);
            fields.get(2)?.parse().ok().filter(|_| is_member)
        })
        .collect();
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(Owner { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_comes_with_its_groups() {
        let folder = tempfile::tempdir().unwrap();
        let (passwd, group) = (folder.path().join("passwd"), folder.path().join("group"));
        std::fs::write(&passwd, "root:x:0:0::/:/bin/sh\nvm:x:64:65::/:/bin/sh\nbad:x:y\n").unwrap();
        std::fs::write(&group, "root:x:0:\nkvm:x:108:other,vm\nvm:x:65:\nbroken\n").unwrap();
        let files = UserFiles {
            passwd: &passwd,
            group: &group,
        };
        let owner = find("vm", &files).unwrap();
        assert_eq!((owner.uid, owner.gid, owner.groups), (64, 65, vec![65, 108]));
        assert!(find("nobody", &files).unwrap_err().contains("no user"));
        assert!(find("bad", &files).unwrap_err().contains("malformed"));
    }
}
