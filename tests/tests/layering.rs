//! The arrows between our crates, as ARCHITECTURE.md draws them.
//!
//! `cargo tree -p X -e normal` is asked for each crate alone: `cargo metadata` unifies features
//! across the workspace and would show arrows that a user of one crate does not get.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// One row: a crate, with which features, which of ours it may use, what it never reaches.
struct Row {
    package: &'static str,
    features: &'static [&'static str],
    ours: &'static [&'static str],
    never: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        package: "dragonfly-core",
        features: &[],
        ours: &[],
        never: &["axum", "dhcproto", "pyo3", "redb", "kube", "reqwest", "aes"],
    },
    Row { package: "dragonfly-core", features: &["--all-features"], ours: &[], never: &["axum", "dhcproto", "pyo3"] },
    Row { package: "dragonfly-boot", features: &[], ours: &["dragonfly-core"], never: &["axum", "redb", "kube"] },
    Row { package: "dragonfly-p2p", features: &[], ours: &["dragonfly-core"], never: &["axum", "dhcproto"] },
    Row { package: "dragonfly-actions", features: &[], ours: &["dragonfly-core"], never: &["axum", "dhcproto"] },
    Row {
        package: "dragonfly-actions",
        features: &["--no-default-features"],
        ours: &["dragonfly-core"],
        never: &["axum", "dhcproto", "nix", "gpt", "zstd"],
    },
    Row {
        package: "dragonfly-server",
        features: &[],
        ours: &["dragonfly-core", "dragonfly-boot", "dragonfly-p2p", "dragonfly-actions"],
        // The last three come with the half of `actions` that touches disks.
        never: &["pyo3", "gpt", "bzip2"],
    },
    Row {
        package: "dragonfly-py",
        features: &[],
        ours: &["dragonfly-core", "dragonfly-boot", "dragonfly-actions"],
        never: &["axum"],
    },
    Row {
        package: "mage",
        features: &[],
        ours: &["dragonfly-core", "dragonfly-actions", "dragonfly-p2p"],
        never: &["axum", "redb", "kube", "dhcproto", "pyo3", "aws-lc-rs"],
    },
    Row { package: "power_driver", features: &[], ours: &["dragonfly-core"], never: &["axum", "redb", "kube", "aes"] },
    Row { package: "sqlite_store", features: &[], ours: &["dragonfly-core"], never: &["axum", "redb", "kube", "aes"] },
];

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace")
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(args).current_dir(workspace()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// Every package that ends up in this one's normal build, itself left out.
fn reached(row: &Row) -> BTreeSet<String> {
    let mut args =
        vec!["tree", "--locked", "--offline", "-p", row.package, "-e", "normal", "--prefix", "none", "-f", "{p}"];
    args.extend(row.features);
    names(&cargo(&args), row.package)
}

fn names(tree: &str, root: &str) -> BTreeSet<String> {
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != root)
        .map(str::to_owned)
        .collect()
}

fn is_ours(name: &str) -> bool {
    name.starts_with("dragonfly") || name == "mage"
}

fn wrong(row: &Row, reached: &BTreeSet<String>) -> Vec<String> {
    let sideways = reached.iter().filter(|n| is_ours(n) && !row.ours.contains(&n.as_str()));
    let banned = reached.iter().filter(|n| row.never.contains(&n.as_str()));
    let name = |n: &String| format!("{} {:?} reaches {n}", row.package, row.features);
    sideways.map(name).chain(banned.map(name)).collect()
}

#[test]
fn every_crate_keeps_to_its_row() {
    let members =
        cargo(&["tree", "--locked", "--offline", "--workspace", "--depth", "0", "--prefix", "none", "-f", "{p}"]);
    let members = names(&members, "");
    let unlisted: Vec<_> =
        members.iter().filter(|m| !ROWS.iter().any(|r| r.package == m.as_str()) && *m != "dragonfly-tests").collect();
    assert!(unlisted.is_empty(), "packages without a row in this test: {unlisted:?}");
    let wrong: Vec<_> =
        ROWS.iter().filter(|row| members.contains(row.package)).flat_map(|row| wrong(row, &reached(row))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_forbidden_arrow_is_seen() {
    let row = &ROWS[2];
    assert_eq!(row.package, "dragonfly-boot");
    let tree = names(
        "dragonfly-boot v0.1.0\ndragonfly-core v0.1.0 (/x)\naxum v0.8.9\ndragonfly-actions v0.1.0 (/y) (*)\n",
        row.package,
    );
    assert_eq!(wrong(row, &tree), ["dragonfly-boot [] reaches dragonfly-actions", "dragonfly-boot [] reaches axum"]);
}
