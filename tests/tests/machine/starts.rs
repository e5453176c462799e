//! Starts that fail, and starts that must not be.

use plasmavmc_kvm::machine::{MachineError, launch};
use plasmavmc_tests::vms::{disk, micro, paused};
use plasmavmc_types::{DiskFormat, VmId};
use uuid::Uuid;

use crate::at_a_place;

#[test]
fn a_failed_start_says_why_and_leaves_nothing() {
    at_a_place(async |place| {
        let spec = micro("broken", "", |fields| {
            let missing = place.folder().join("missing.qcow2");
            fields
                .disks
                .push(disk("root", &missing, DiskFormat::Qcow2, 16).unwrap());
        })?;
        let error = place.launch(spec).await.unwrap_err();
        assert!(format!("{error:#}").contains("missing.qcow2"), "{error:#}");
        Ok(())
    });
}

#[test]
fn one_vm_is_never_started_twice() {
    at_a_place(async |place| {
        let id = VmId::from_uuid(Uuid::new_v4());
        let first = launch(place.host(), place.plan(id, paused("one")?)).await?;
        let second = launch(place.host(), place.plan(id, paused("one")?)).await.unwrap_err();
        assert!(matches!(second, MachineError::Runtime(_)), "{second}");
        assert_eq!(place.qemus().len(), 1);
        first.kill().await?;
        launch(place.host(), place.plan(id, paused("one")?))
            .await?
            .kill()
            .await?;
        Ok(())
    });
}
