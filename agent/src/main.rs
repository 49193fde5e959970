//! `mage`: as `/init` of the RAM disk, or as an ordinary process for tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    mage::start(std::env::args_os().collect())
}
