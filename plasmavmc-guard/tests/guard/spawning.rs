//! What a child finds when it starts, and what is left of one that did not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};

use plasmavmc_guard::client::CallError;
use plasmavmc_guard::wire::{Cgroup, DeathSignal, ExitReason, Output, Owner, Phase, Refusal, SpawnOrder, Step};
use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::cgroups::{TestCgroup, writable_cgroup};
use crate::place::{Place, next_exit, processes_naming};

/// Runs a script to its end; returns its exit reason and what it wrote.
async fn run(place: &Place, mut order: SpawnOrder) -> (ExitReason, String) {
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    order.output = Output::File("out".to_owned());
    let held = client.spawn(order, &[]).await.expect("spawned");
    let (exited, exit) = next_exit(&mut events).await;
    assert_eq!(exited.key, held.key);
    client.collect(held.key).await.expect("collected");
    let log = place.path().join("out");
    let text = fs::read_to_string(&log).expect("a log");
    fs::remove_file(log).expect("removed");
    (exit.reason, text)
}

fn fields(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name, value.trim())).collect()
}

#[tokio::test]
async fn a_child_finds_what_its_order_names_and_nothing_else() {
    // A guard whose starter was careless has more open than it knows.
    let leaked = fs::File::open("/dev/null").expect("a file");
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("inheritable");
    let place = Place::with_guard();
    let mut order =
        place.script("env; pwd; ls -m /proc/self/fd; cat /proc/self/status; readlink /proc/$$/fd/0; exit 3");
    order.environment.insert("COLOUR".to_owned(), "a=b c".to_owned());
    let (reason, text) = run(&place, order).await;
    assert_eq!(reason, ExitReason::Exited { code: 3 });
    assert!(text.contains("COLOUR=a=b c\n"), "{text}");
    assert!(!text.contains("HOME="), "{text}");
    assert!(text.contains(&format!("\n{}\n", place.path().display())), "{text}");
    let fields = fields(&text);
    // The last is the folder that ls reads.
    assert!(text.contains("\n0, 1, 2, 3\n"), "{text}");
    assert_eq!(fields["SigBlk"], "0000000000000000", "{text}");
    let ignored = u64::from_str_radix(fields["SigIgn"], 16).expect("a mask");
    for signal in [Signal::HUP, Signal::TERM, Signal::CHILD, Signal::PIPE] {
        assert_eq!(ignored & (1 << (signal.as_raw() - 1)), 0, "{signal:?} is ignored");
    }
    assert_eq!(fields["NoNewPrivs"], "1", "{text}");
    assert!(text.ends_with("/dev/null\n"), "{text}");
}

#[tokio::test]
async fn a_child_gets_the_limits_and_the_scheduling_that_the_guard_was_started_with() {
    let place = Place::with_guard();
    let script = "cat /proc/self/limits; cat /proc/$$/oom_score_adj; cut -d' ' -f6,41 /proc/$$/stat; echo $$";
    let mut order = place.script(script);
    order.oom_score_adj = 300;
    order.open_files = Some(77);
    let (_, text) = run(&place, order).await;
    let limit = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a limit")
            .to_owned();
        line[name.len()..]
            .split_whitespace()
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    assert_eq!(limit("Max open files")[0], "77");
    let own = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    let own = own.current.map_or("unlimited".to_owned(), |limit| limit.to_string());
    assert_eq!(limit("Max locked memory")[0], own);
    let rest: Vec<&str> = text.lines().rev().take(3).collect();
    assert_eq!(rest[2], "300");
    // Its session is its own, and its scheduling policy ordinary.
    assert_eq!(rest[1], format!("{} 0", rest[0]), "{text}");
}

#[tokio::test]
async fn descriptors_arrive_under_their_numbers_and_a_lock_lasts_as_long_as_the_child() {
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let child = place.obedient();
    let mut order = child.order.clone();
    order.arguments[1] = format!("echo through >&7; echo log; {}", order.arguments[1]);
    order.descriptors = vec![200, 7];
    order.output = Output::Passed;
    let (mut from_seven, seven) = std::io::pipe().expect("a pipe");
    let (mut from_log, log) = std::io::pipe().expect("a pipe");
    let lock = fs::File::create(place.path().join("lock")).expect("a file");
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("a lock");
    let held = client
        .spawn(order, &[log.as_fd(), lock.as_fd(), seven.as_fd()])
        .await
        .expect("spawned");
    drop((seven, log, lock));
    let (mut through, mut logged) = ([0; 8], [0; 4]);
    from_seven.read_exact(&mut through).expect("what the child wrote");
    from_log.read_exact(&mut logged).expect("what the child wrote");
    assert_eq!((&through, &logged), (b"through\n", b"log\n"));
    let again = fs::File::open(place.path().join("lock")).expect("a file");
    let refused = rustix::fs::flock(&again, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(
        refused,
        Err(rustix::io::Errno::WOULDBLOCK),
        "the guard or its child let go of the lock"
    );
    child.exit(0);
    assert_eq!(next_exit(&mut events).await.0.key, held.key);
    // The child is gone, so nobody holds it: the guard kept no copy.
    rustix::fs::flock(&again, FlockOperation::NonBlockingLockExclusive).expect("the lock is free");
    assert_eq!(from_seven.read(&mut through).expect("the end"), 0);
}

#[tokio::test]
async fn a_launch_that_fails_says_where_and_leaves_nothing() {
    type Break = fn(&Place, &mut SpawnOrder);
    let cases: [(Break, Step, Option<i32>); 8] = [
        (|_, order| order.program = "/no/such".into(), Step::Execute, Some(2)),
        (|_, order| order.program = "/etc/passwd".into(), Step::Execute, Some(13)),
        (
            |_, order| order.working_folder = "/no/such".into(),
            Step::WorkingFolder,
            Some(2),
        ),
        (
            |place, order| {
                symlink("/etc/passwd", place.path().join("link")).expect("a link");
                order.output = Output::File("link".into());
            },
            Step::Output,
            Some(40),
        ),
        (
            |place, order| {
                fs::write(place.path().join("one"), "").expect("a file");
                fs::hard_link(place.path().join("one"), place.path().join("two")).expect("a second name");
                order.output = Output::File("one".into());
            },
            Step::Output,
            None,
        ),
        (
            |_, order| order.output = Output::File("/dev/zero".into()),
            Step::Output,
            None,
        ),
        (|_, order| order.open_files = Some(u64::MAX - 1), Step::Limits, Some(1)),
        (
            |place, order| {
                let folder = place.path().join("plain").display().to_string();
                let (cpu_weight, memory_max) = (None, None);
                order.cgroup = Some(Cgroup {
                    folder,
                    cpu_weight,
                    memory_max,
                });
            },
            Step::Cgroup,
            None,
        ),
    ];
    let place = Place::with_guard();
    let client = place.client();
    for (break_it, expected_step, expected_errno) in cases {
        let mut order = place.script("exit 0");
        break_it(&place, &mut order);
        let vm = order.key.vm.to_string();
        match client.spawn(order, &[]).await {
            Err(CallError::Refused(Refusal::Launch { step, errno, .. })) => {
                assert_eq!((step, errno), (expected_step, expected_errno));
            }
            other => panic!("{expected_step:?}: {other:?}"),
        }
        assert_eq!(processes_naming(&vm), [], "{expected_step:?}");
        assert_eq!(place.records(), Vec::<String>::new());
    }
    assert_eq!(client.list().await.expect("a list"), []);
}

#[tokio::test]
async fn a_vm_is_held_once_and_a_repeated_order_starts_nothing() {
    let place = Place::with_guard();
    let client = place.client();
    let child = place.obedient();
    // Side by side, as a caller that repeats itself after a lost answer may do.
    let (first, second) = tokio::join!(
        client.spawn(child.order.clone(), &[]),
        client.spawn(child.order.clone(), &[])
    );
    let first = first.expect("spawned");
    assert!(
        matches!(&second, Err(CallError::Refused(Refusal::Busy(held))) if held.key == first.key),
        "{second:?}"
    );
    let repeated = client.spawn(child.order.clone(), &[]).await.expect("the same child");
    assert_eq!(repeated, first);
    let mut other = child.order.clone();
    other.key.attempt = crate::place::new_key().attempt;
    let refused = client.spawn(other.clone(), &[]).await;
    assert!(
        matches!(&refused, Err(CallError::Refused(Refusal::Busy(held))) if held.pid == first.pid),
        "{refused:?}"
    );
    // Not even after its exit: how it ended is not known to anybody yet.
    let mut events = client.subscribe().await.expect("a subscription");
    child.exit(0);
    next_exit(&mut events).await;
    let refused = client.spawn(other.clone(), &[]).await;
    assert!(
        matches!(&refused, Err(CallError::Refused(Refusal::Busy(held))) if held.phase.is_exited()),
        "{refused:?}"
    );
    client.collect(child.key()).await.expect("collected");
    client.spawn(other, &[]).await.expect("spawned");
}

#[tokio::test]
async fn an_unprivileged_child_is_stopped_when_its_guard_dies() {
    let mut place = Place::with_guard();
    if !rustix::process::geteuid().is_root() {
        // Only root can give a child another user.
        return;
    }
    let client = place.client();
    let child = place.obedient();
    let mut order = child.order.clone();
    order.working_folder = "/".to_owned();
    order.owner = Some(Owner {
        uid: 65534,
        gid: 65534,
        groups: vec![],
    });
    order.death_signal = Some(DeathSignal::Stop);
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("open to all");
    let held = client.spawn(order, &[]).await.expect("spawned");
    let proc = format!("/proc/{}", held.pid);
    assert_eq!(fs::metadata(&proc).expect("it runs").uid(), 65534);
    let state = || {
        fs::read_to_string(format!("{proc}/stat"))
            .expect("it lives")
            .rsplit_once(')')
            .map(|(_, rest)| rest.as_bytes()[1])
    };
    // A new program in the same process is no death.
    client.upgrade(None).await.expect("upgraded");
    assert_eq!(client.list().await.expect("a list"), std::slice::from_ref(&held));
    assert_ne!(state(), Some(b'T'));
    place.kill_guard();
    crate::place::eventually("it is stopped", async || (state() == Some(b'T')).then_some(())).await;
    place.start_guard(&[]);
    let list = place.client().list().await.expect("a list");
    assert_eq!((list[0].pid, &list[0].phase), (held.pid, &Phase::Adopted));
}

#[tokio::test]
async fn a_cgroup_is_joined_and_removed_and_what_it_cannot_do_is_noted() {
    let Some(root) = writable_cgroup() else { return };
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let child = place.obedient();
    let mut order = child.order.clone();
    let folder = format!("{root}/plasmavmc-test-{}", child.key().vm);
    order.cgroup = Some(Cgroup {
        folder: folder.clone(),
        cpu_weight: Some(50),
        memory_max: Some(64 << 20),
    });
    let held = client.spawn(order, &[]).await.expect("spawned");
    let processes = fs::read_to_string(format!("{folder}/cgroup.procs")).expect("its cgroup");
    assert_eq!(processes.trim(), held.pid.to_string());
    for file in ["cpu.weight", "memory.max"] {
        let noted = held.notes.iter().any(|note| note.starts_with(file));
        let there = fs::exists(format!("{folder}/{file}")).expect("a look");
        assert_eq!(noted, !there, "{file}: {:?}", held.notes);
    }
    child.exit(0);
    next_exit(&mut events).await;
    client.collect(child.key()).await.expect("collected");
    assert!(!fs::exists(&folder).expect("a look"), "{folder} is left");
}

/// A launcher in a frozen cgroup stands still like one on a dead mount.
#[tokio::test]
async fn a_launch_that_hangs_delays_nobody_and_ends_with_a_reason() {
    let Some(root) = writable_cgroup() else { return };
    let frozen = TestCgroup::frozen(&root);
    let place = Place::with_guard();
    let client = place.client();
    let mut order = place.script("echo > executed");
    let vm = order.key.vm.to_string();
    order.cgroup = Some(Cgroup {
        folder: frozen.folder(),
        cpu_weight: None,
        memory_max: None,
    });
    let hanging = tokio::spawn({
        let (client, order) = (client.clone(), order.clone());
        async move { client.spawn(order, &[]).await }
    });
    crate::place::eventually("it is under way", async || {
        let list = client.list().await.expect("a list");
        list.into_iter().find(|held| held.phase == Phase::Preparing)
    })
    .await;
    let mut others = 0;
    while !hanging.is_finished() {
        let other = client.spawn(place.script("exit 0"), &[]).await.expect("spawned");
        client.kill(other.key).await.expect("killed");
        crate::place::eventually("it is collected", async || client.collect(other.key).await.ok()).await;
        others += 1;
    }
    let refused = hanging.await.expect("it ends");
    assert!(
        matches!(refused, Err(CallError::Refused(Refusal::LaunchTimeout { .. }))),
        "{refused:?}"
    );
    assert!(others > 50, "only {others} others were served meanwhile");
    let nothing = async || client.list().await.expect("a list").is_empty().then_some(());
    crate::place::eventually("nothing is held", nothing).await;
    assert_eq!(processes_naming(&vm), []);
    assert!(!fs::exists(place.path().join("executed")).expect("a look"));
    assert!(frozen.is_gone_or_empty());
}
