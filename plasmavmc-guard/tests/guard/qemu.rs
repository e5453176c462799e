//! The process it is all about: a QEMU that is started paused, killed, and outlives its guard.

use plasmavmc_guard::wire::{ExitReason, Output, Phase, SpawnOrder};

use crate::place::{Place, eventually, new_key, next_exit};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

#[tokio::test]
async fn a_paused_qemu_outlives_its_guard_and_dies_on_order() {
    if !std::path::Path::new(QEMU).exists() {
        return;
    }
    let mut place = Place::with_guard();
    let client = place.client();
    let key = new_key();
    let mut order = SpawnOrder::new(key, QEMU, place.path().to_str().expect("a plain path"));
    let arguments = format!(
        "-name guest={0} -uuid {0} -S -nodefaults -display none -machine q35,accel=tcg -m 32",
        key.vm
    );
    order.arguments = arguments.split(' ').map(str::to_owned).collect();
    order
        .arguments
        .extend(["-qmp", "unix:qmp.sock,server=on,wait=off"].map(str::to_owned));
    order.output = Output::File("qemu.log".to_owned());
    let held = client.spawn(order.clone(), &[]).await.expect("spawned");
    let listens = async || std::os::unix::net::UnixStream::connect(place.path().join("qmp.sock")).ok();
    eventually("QMP", listens).await;

    place.kill_guard();
    place.start_guard(&[]);
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let adopted = client.list().await.expect("a list");
    assert_eq!((adopted[0].pid, &adopted[0].phase), (held.pid, &Phase::Adopted));
    assert!(std::os::unix::net::UnixStream::connect(place.path().join("qmp.sock")).is_ok());
    client.kill(key).await.expect("killed");
    assert_eq!(
        next_exit(&mut events).await.1.reason,
        ExitReason::Unknown { kill_ordered: true }
    );
    client.collect(key).await.expect("collected");

    // What QEMU itself complains about is in its log, and its exit code is known to its own guard.
    order.arguments.push("-no-such-option".to_owned());
    client.spawn(order, &[]).await.expect("it executes");
    assert_eq!(next_exit(&mut events).await.1.reason, ExitReason::Exited { code: 1 });
    let log = std::fs::read_to_string(place.path().join("qemu.log")).expect("a log");
    assert!(log.contains("-no-such-option: invalid option"), "{log}");
}
