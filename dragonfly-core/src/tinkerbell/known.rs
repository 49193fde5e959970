//! Why fields are not carried over.

use super::Outcome::{Changed, Lost, NotNeeded};
use super::fields::Reason;

const BY_AGENT: &str = "the agent tells it when the machine first boots";
const OWN_BOOT: &str = "what a machine boots is decided and served here";

/// Of every object.
const METADATA: [Reason; 10] = [
    ("metadata.uid", NotNeeded, "the store gives its own"),
    ("metadata.resourceVersion", NotNeeded, "the store gives its own"),
    ("metadata.generation", NotNeeded, "the store gives its own"),
    ("metadata.creationTimestamp", NotNeeded, "the store gives its own"),
    ("metadata.managedFields", NotNeeded, "Kubernetes' own book-keeping"),
    ("metadata.selfLink", NotNeeded, "Kubernetes' own book-keeping"),
    ("metadata.finalizers", Lost, "the controllers that they belong to do not run here"),
    ("metadata.ownerReferences", Lost, "the objects that it belongs to are not here"),
    ("metadata.deletionTimestamp", Lost, "it was being deleted there"),
    ("status", NotNeeded, "what was seen there is seen anew here"),
];

pub(super) fn hardware() -> Vec<Reason> {
    let own = [
        ("spec.agentID", Lost, "machines are known by their cards and serial numbers here"),
        ("spec.auto", NotNeeded, "a machine that is not known is registered when it first boots"),
        ("spec.tinkVersion", NotNeeded, "there is one version of everything here"),
        ("spec.resources", NotNeeded, BY_AGENT),
        (
            "spec.userData",
            Lost,
            "no metadata service answers here; write it with a `writefile` step into the seed directory of cloud-init",
        ),
        ("spec.vendorData", Lost, "no metadata service answers here; write it with a `writefile` step"),
        ("spec.references", Lost, "other objects of the cluster are not read"),
        ("spec.disks", Changed, "is used to fill templates for this machine, and kept nowhere else"),
        ("spec.interfaces[].dhcp.arch", NotNeeded, "firmware tells it with every request"),
        ("spec.interfaces[].dhcp.uefi", NotNeeded, "firmware tells it with every request"),
        ("spec.interfaces[].dhcp.iface_name", NotNeeded, BY_AGENT),
        ("spec.interfaces[].dhcp.vlan_id", Lost, "the switch port must carry that network untagged"),
        ("spec.interfaces[].dhcp.classless_static_routes", Lost, "DHCP option 121 is not given"),
        ("spec.interfaces[].dhcp.tftp_server_name", NotNeeded, OWN_BOOT),
        ("spec.interfaces[].dhcp.boot_file_name", NotNeeded, OWN_BOOT),
        ("spec.interfaces[].dhcp.ip", Lost, "a machine has one reserved address, that of its first interface"),
        ("spec.interfaces[].dhcp.hostname", Lost, "a name is given by DHCP together with a reserved address"),
        ("spec.interfaces[].netboot.ipxe.contents", Lost, "put the script on a server and name it in `spec.chain`"),
        ("spec.interfaces[].netboot.ipxe.binary", NotNeeded, OWN_BOOT),
        ("spec.interfaces[].netboot.osie", NotNeeded, "the agent's own kernel is booted"),
        (
            "spec.interfaces[].netboot.osie.kernelParams",
            Lost,
            "the agent's kernel takes `spec.console` and nothing else",
        ),
        ("spec.interfaces[].netboot.pxelinux", Lost, "machines are booted by iPXE"),
        ("spec.interfaces[].netboot.rpi", Lost, "boot files for a Raspberry Pi are not served"),
        ("spec.interfaces[].isoboot", Lost, "machines are booted from the network, not from an ISO"),
        ("spec.metadata", Lost, "no metadata service answers here"),
        ("spec.metadata.state", NotNeeded, "where a machine is in its life is known here by what it does"),
        ("spec.metadata.instance.id", NotNeeded, "a machine is known by its name and its cards"),
        ("spec.metadata.instance.operating_system", Lost, "what is installed is named by the Template"),
        (
            "spec.metadata.instance.storage",
            Changed,
            "is used by the `rootio` steps of templates for this machine, and kept nowhere else",
        ),
        (
            "spec.metadata.instance.crypted_root_password",
            Lost,
            "no metadata service answers here; write it with a `writefile` step",
        ),
        (
            "spec.metadata.instance.ssh_keys",
            Lost,
            "no metadata service answers here; write them with a `writefile` step",
        ),
    ];
    METADATA.into_iter().chain(own).collect()
}

pub(super) fn controller() -> Vec<Reason> {
    let own = [
        ("spec.connection.providerOptions.preferredOrder", NotNeeded, "one driver speaks to it: that of the address"),
        (
            "spec.connection.providerOptions.redfish.useBasicAuth",
            NotNeeded,
            "a session is opened where the controller has them",
        ),
        (
            "spec.connection.providerOptions.redfish.systemName",
            Lost,
            "write the system's path into the address: redfish://HOST/redfish/v1/Systems/ID",
        ),
        ("spec.connection.providerOptions.rpc", Lost, "no driver speaks to it"),
        ("spec.connection.providerOptions.intelAMT", Lost, "no driver speaks to it"),
        ("spec.connection.providerOptions.homeassistant", Lost, "no driver speaks to it"),
    ];
    METADATA.into_iter().chain(own).collect()
}

pub(super) fn workflow() -> Vec<Reason> {
    let own = [
        (
            "spec.bootOptions.toggleAllowNetboot",
            NotNeeded,
            "a machine with an assignment is let boot, and from its disk when it is done",
        ),
        ("spec.bootOptions.bootMode", NotNeeded, "an assignment boots a machine with a controller from the network"),
        ("spec.bootOptions.isoURL", Lost, "machines are booted from the network, not from an ISO"),
        (
            "spec.bootOptions.custombootConfig",
            Lost,
            "an assignment boots a machine from the network, and does nothing else with its controller",
        ),
    ];
    METADATA.into_iter().chain(own).collect()
}

pub(super) fn plain() -> Vec<Reason> {
    METADATA.to_vec()
}

pub(super) fn bare_metal_host() -> Vec<Reason> {
    let own = [
        ("spec.online", NotNeeded, "an assignment switches a machine on; `dragonfly power` does so without one"),
        ("spec.automatedCleaningMode", Lost, "disks are not wiped by themselves; a template writes them"),
        ("spec.architecture", NotNeeded, BY_AGENT),
        ("spec.hardwareProfile", NotNeeded, BY_AGENT),
        ("spec.inspectionMode", NotNeeded, "every machine is looked at when it first boots"),
        ("spec.consumerRef", Lost, "Cluster API does not run here"),
        ("spec.taints", Lost, "no scheduler chooses machines here; labels and `protected` are what there is"),
        ("spec.userData", Lost, "write cloud-init's seed with a `writefile` step"),
        ("spec.networkData", Lost, "write cloud-init's seed with a `writefile` step"),
        ("spec.metaData", Lost, "write cloud-init's seed with a `writefile` step"),
        ("spec.preprovisioningNetworkDataName", Lost, "the agent learns its network by DHCP"),
        ("spec.raid", Lost, "RAID is not set up"),
        ("spec.firmware", Lost, "firmware is not set up"),
        ("spec.customDeploy", Lost, "it names steps of Ironic; write a Template"),
        (
            "spec.rootDeviceHints",
            Changed,
            "becomes the disk of the Template that is made of `spec.image`, and is kept nowhere else",
        ),
    ];
    METADATA.into_iter().chain(own).collect()
}
