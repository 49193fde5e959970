//! Any path is a resource or an error; no file name leads out of the directory.
use std::sync::LazyLock;

use dragonfly_boot::BootFiles;
use dragonfly_boot::http::Route;

/// An empty directory: whatever is found in it came from elsewhere.
static FILES: LazyLock<BootFiles> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("dragonfly-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    BootFiles::new(dir)
});

/// One input.
pub(crate) fn http_path(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    if let Ok(Route::File(name)) = Route::parse(path) {
        assert!(FILES.open(&name).is_err(), "{name:?} was found in an empty directory");
    }
}
