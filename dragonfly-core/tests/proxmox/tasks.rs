//! Tasks that fail, wait, or are the cluster's own.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_fail_and_vms_that_are_locked_say_so() {
    let Some(peer) = small().await else { return };
    let vm = vm(&peer, 101);
    peer.change(|world| world.vms.get_mut(&101).unwrap().fails = Some("no space left on device".to_owned()));
    let error = vm.on().await.unwrap_err();
    assert_eq!(error.to_string(), "the controller refused to switch on: no space left on device");
    assert!(!error.is_retryable());

    let lock = |lock: Option<&str>| {
        peer.change(|world| {
            let vm = world.vms.get_mut(&101).unwrap();
            vm.fails = None;
            vm.config.remove("lock");
            vm.config.extend(lock.map(|lock| ("lock".to_owned(), lock.to_owned())));
        });
    };
    lock(Some("backup"));
    let on = vm.on().await.unwrap_err();
    let boot = vm.set_next_boot(Some(BootOverride::once(BootDevice::Pxe))).await.unwrap_err();
    for error in [on, boot] {
        assert!(matches!(&error, PowerError::Busy { reason } if reason == "VM is locked (backup)"), "{error:?}");
        assert!(error.is_retryable());
    }
    // One that was suspended to disk is continued.
    lock(Some("suspended"));
    vm.on().await.unwrap();
    assert!(peer.vm(101).unwrap().is_on);

    // An operating system that does not go, and whoever takes the power all the same.
    peer.change(|world| world.vms.get_mut(&101).unwrap().obeys = false);
    let asked = Instant::now();
    vm.soft_off().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5), "it is asked, and not waited for");
    assert_eq!(vm.state().await.unwrap(), PowerState::On);
    vm.off().await.unwrap();
    assert_eq!(peer.vm(101).unwrap().done, ["start", "stop"]);
    is_lawful(&peer);
    // Releases that cannot overrule one wait for it.
    peer.change(|world| (world.is_old, world.lock) = (true, Duration::from_millis(300)));
    vm.on().await.unwrap();
    vm.soft_off().await.unwrap();
    let error = vm.off().await.unwrap_err();
    assert!(matches!(&error, PowerError::Busy { reason } if reason.contains("got timeout")), "{error:?}");
    let strange = peer.seen().strange;
    assert!(strange.len() == 1 && strange[0].contains("overrule-shutdown"), "{strange:?}");

    let error = vm_as(&peer, 102, &as_user(TOKEN, "secret")).reset().await.unwrap_err().to_string();
    assert_eq!(error, "the controller refused to reset the machine: it is off");
    peer.change(|world| world.vms.get_mut(&103).unwrap().config.insert("template".to_owned(), "1".to_owned()));
    let error = self::vm(&peer, 103).on().await.unwrap_err().to_string();
    assert!(error.contains("it's a template"), "{error}");
    peer.change(|world| world.nodes.insert("pve2".to_owned(), false));
    let error = self::vm(&peer, 102).on().await.unwrap_err();
    let PowerError::Unreachable { source } = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the VM's node does not answer: No route to host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_the_cluster_keeps_running_is_cycled() {
    let Some(peer) = small().await else { return };
    peer.change(|world| world.vms.get_mut(&101).unwrap().is_kept = true);
    let vm = vm(&peer, 101);
    vm.on().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(vm.state().await.unwrap(), PowerState::On);
    vm.cycle().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let is = peer.vm(101).unwrap();
    assert!(is.is_on && is.done == ["start", "stop", "start"], "{is:?}");
    let dispatcher = Dispatcher::new(PowerDrivers::new().with(Proxmox::default()), Limits::default());
    let target = Target { address: url(&peer, "/qemu/101"), credential: Some(as_user(TOKEN, "secret")) };
    assert_eq!(dispatcher.carry_out(&target, Operation::Off).await.unwrap(), Outcome::Done);
    assert!(!peer.vm(101).unwrap().is_on);
}
