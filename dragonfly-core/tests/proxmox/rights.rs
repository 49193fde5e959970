//! Who may what, and whom to trust.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_what_is_missing() {
    let Some(peer) = small().await else { return };
    let sees = Account::new("viewer@pve!a", "secret", &[("/vms", "VM.Audit")]);
    let switches = Account::new(
        "half@pve",
        "secret",
        &[("/vms/101", "VM.Audit"), ("/vms/101", "VM.PowerMgmt"), ("/vms/101", "VM.Config.Disk")],
    );
    peer.change(|world| world.accounts.extend([sees, switches]));
    for is_terse in [false, true] {
        peer.change(|world| world.is_terse = is_terse);
        let viewer = as_user("viewer@pve!a", "secret");
        let error = vm_as(&peer, 101, &viewer).on().await.unwrap_err();
        let words = "the account may not switch on (VM.PowerMgmt on /vms/101) on this controller; it needs more rights";
        assert!(matches!(error, PowerError::Forbidden { .. }) && error.to_string() == words, "{error}");
        let open = Cluster::open(&url(&peer, ""), &viewer).unwrap();
        let error = open.snapshot().await.unwrap_err().to_string();
        assert!(error.contains("may not see the cluster's state (Sys.Audit on /)"), "{error}");
        let half = vm_as(&peer, 101, &as_user("half@pve", "secret"));
        let error = half.set_next_boot(Some(BootOverride::once(BootDevice::Pxe))).await.unwrap_err().to_string();
        assert!(error.contains("may not boot from pxe (VM.Config.Options on /vms/101)"), "{error}");
        let other = vm_as(&peer, 102, &as_user("half@pve", "secret"));
        let error = other.on().await.unwrap_err().to_string();
        assert!(error.contains("shows no VM 102") && error.contains("VM.Audit on /vms/102"), "{error}");
    }
    for (user, password) in
        [(TOKEN, "wrong"), ("root@pam!other", "secret"), ("root@pam", "wrong"), ("nobody@pam", "secret")]
    {
        let error = vm_as(&peer, 101, &as_user(user, password)).on().await.unwrap_err();
        assert!(matches!(error, PowerError::Unauthorised), "{user}: {error:?}");
    }
    assert_eq!(peer.vm(101).unwrap().config, Machine::new(101, "pve1").config);
    is_lawful(&peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_used_until_it_ends_and_renewed_once() {
    let Some(peer) = small().await else { return };
    let vm = vm_as(&peer, 101, &as_user("root@pam", "secret"));
    vm.on().await.unwrap();
    vm.state().await.unwrap();
    assert_eq!(peer.seen().logins, 1);
    peer.change(World::end_tickets);
    vm.off().await.unwrap();
    assert_eq!(peer.seen().logins, 2);
    // The password was changed meanwhile: it is tried once and not again and again.
    peer.change(|world| {
        world.end_tickets();
        world.accounts.retain(|account| account.name != "root@pam");
    });
    let before = peer.seen().requests.len();
    assert!(matches!(vm.state().await.unwrap_err(), PowerError::Unauthorised));
    assert_eq!(peer.seen().requests.len() - before, 2);
    // Many at the same time log in once.
    let Some(peer) = start(World::new().with_vms(101, 40)).await else { return };
    let many = Cluster::open(&url(&peer, ""), &as_user("root@pam", "secret")).unwrap();
    assert_eq!(many.snapshot().await.unwrap().machines.len(), 40);
    peer.change(World::end_tickets);
    assert_eq!(many.snapshot().await.unwrap().machines.len(), 40);
    assert_eq!(peer.seen().logins, 2);
    is_lawful(&peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_to_trust_is_in_the_address() {
    let Some((peer, pem, fingerprint)) = with_tls(World::new().with_vms(101, 1)).await else { return };
    let port = peer.address().port();
    let vm = |driver: &Proxmox, host: &str, tls: &str| {
        let url = format!("proxmox://{host}:{port}/qemu/101{tls}").parse().unwrap();
        driver.vm(&url, Some(&as_user(TOKEN, "secret"))).unwrap()
    };
    let none = Proxmox::default();
    vm(&none, "127.0.0.1", &format!("?tls=sha256:{fingerprint}")).on().await.unwrap();
    vm(&none, "127.0.0.1", "?tls=insecure").off().await.unwrap();
    let roots = Proxmox::default().with_roots(&pem).unwrap();
    vm(&roots, "localhost", "").on().await.unwrap();
    let asked = peer.seen().requests.len();
    for (driver, host, tls) in [
        (&none, "127.0.0.1", format!("?tls=sha256:{}", "ab".repeat(32))),
        (&none, "localhost", String::new()),
        (&roots, "127.0.0.1", String::new()),
    ] {
        let error = vm(driver, host, &tls).on().await.unwrap_err();
        assert!(matches!(error, PowerError::NotTrusted { .. }), "{host}{tls}: {error:?}");
        assert!(error.to_string().contains(&fingerprint), "{error}");
    }
    assert_eq!(peer.seen().requests.len(), asked, "nobody untrusted was told the secret");
    assert!(Proxmox::default().with_roots("").is_err());
}
