//! VMs, times, and what a VM waits for or does when it crashes.

use std::time::Duration;

use plasmavmc_proto::api::{Dependency, DependencyReached, RestartPolicy};
use plasmavmc_types::VmRef;

const MAX_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A VM by id, vmid or name. Refused before anything is sent, if it can be none of them.
pub fn parse_vm(text: &str) -> Result<String, String> {
    let reference: VmRef = text
        .parse()
        .map_err(|invalid: plasmavmc_types::Invalid| invalid.to_string())?;
    Ok(reference.to_string())
}

/// `500ms`, `30s`, `5m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write 500ms, 30s or 5m"))?;
    if duration.is_zero() || duration > MAX_WAIT {
        return Err("more than nothing and at most 7 days are allowed".to_owned());
    }
    Ok(duration)
}

/// `never`, or `TRIES/WINDOW` such as `3/10m`.
pub fn parse_restart(text: &str) -> Result<RestartPolicy, String> {
    if text == "never" {
        return Ok(RestartPolicy {
            never: true,
            ..RestartPolicy::default()
        });
    }
    let wrong = || format!("{text:?} is no restart policy; write never, or tries within a time such as 3/10m");
    let (tries, window) = text.split_once('/').ok_or_else(wrong)?;
    let tries = tries.parse::<u32>().ok().filter(|tries| *tries > 0).ok_or_else(wrong)?;
    let window = parse_duration(window).map_err(|problem| format!("{}: {problem}", wrong()))?;
    let window_s = u32::try_from(window.as_secs())
        .ok()
        .filter(|seconds| *seconds > 0)
        .ok_or_else(wrong)?;
    Ok(RestartPolicy {
        never: false,
        tries,
        window_s,
    })
}

/// `db`, `db:ready` or `db:running`.
pub fn parse_dependency(text: &str) -> Result<Dependency, String> {
    let (vm, until) = match text.split_once(':') {
        None => (text, DependencyReached::Ready),
        Some((vm, "ready")) => (vm, DependencyReached::Ready),
        Some((vm, "running")) => (vm, DependencyReached::Running),
        Some((_, word)) => return Err(format!("{text:?} waits for {word:?}; ready and running are allowed")),
    };
    Ok(Dependency {
        vm: parse_vm(vm)?,
        until: until.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_are_read() {
        let never = RestartPolicy {
            never: true,
            tries: 0,
            window_s: 0,
        };
        assert_eq!(parse_restart("never"), Ok(never));
        assert_eq!(
            parse_restart("3/10m"),
            Ok(RestartPolicy {
                never: false,
                tries: 3,
                window_s: 600
            })
        );
        for bad in ["", "always", "3", "0/10m", "3/", "3/x", "x/10m", "3/10ms", "-1/1m"] {
            let error = parse_restart(bad).unwrap_err();
            assert!(error.contains("3/10m"), "{bad}: {error}");
        }
    }

    #[test]
    fn dependencies_are_read() {
        let on = |vm: &str, until: DependencyReached| {
            Ok(Dependency {
                vm: vm.to_owned(),
                until: until.into(),
            })
        };
        assert_eq!(parse_dependency("db"), on("db", DependencyReached::Ready));
        assert_eq!(parse_dependency("101:running"), on("101", DependencyReached::Running));
        let table = [
            ("db:up", "waits for \"up\"; ready and running"),
            ("", "give an id"),
            (":ready", "give an id"),
        ];
        for (bad, says) in table {
            let error = parse_dependency(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        for bad in ["", "5", "0s", "8d", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
