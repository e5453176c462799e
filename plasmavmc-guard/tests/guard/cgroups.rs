//! Cgroups of tests, on hosts that have a hierarchy to make them in.

use std::fs;

/// A cgroup that goes away with the test, also with one that fails. Made before the place, so dropped after it.
pub struct TestCgroup(String);

impl TestCgroup {
    pub fn frozen(root: &str) -> Self {
        let folder = format!("{root}/plasmavmc-test-{}", crate::place::new_key().vm);
        fs::create_dir(&folder).expect("a cgroup");
        let cgroup = Self(folder);
        cgroup.set_frozen(true);
        cgroup
    }

    pub fn folder(&self) -> String {
        self.0.clone()
    }

    pub fn set_frozen(&self, frozen: bool) {
        fs::write(format!("{}/cgroup.freeze", self.0), if frozen { "1" } else { "0" }).expect("written");
    }

    pub fn is_gone_or_empty(&self) -> bool {
        fs::read_to_string(format!("{}/cgroup.procs", self.0)).map_or(true, |processes| processes.is_empty())
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A version 2 hierarchy in which the test may make folders, if there is one.
pub fn writable_cgroup() -> Option<String> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .map(str::to_owned)
        .find(|root| {
            let probe = format!("{root}/plasmavmc-test-probe-{}", std::process::id());
            let made = fs::exists(format!("{root}/cgroup.procs")).unwrap_or(false) && fs::create_dir(&probe).is_ok();
            made && fs::remove_dir(probe).is_ok()
        })
}
