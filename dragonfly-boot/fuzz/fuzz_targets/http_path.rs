//! Any path is a resource or an error; no file name leads out of the directory.
#![no_main]

use std::sync::LazyLock;

use dragonfly_boot::BootFiles;
use dragonfly_boot::http::Route;
use libfuzzer_sys::fuzz_target;

/// An empty directory: whatever is found in it came from elsewhere.
static FILES: LazyLock<BootFiles> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("dragonfly-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    BootFiles::new(dir)
});

fuzz_target!(|path: &str| {
    if let Ok(Route::File(name)) = Route::parse(path) {
        assert!(FILES.open(&name).is_err(), "{name:?} was found in an empty directory");
    }
});
