//! How a server is told to stop: SIGTERM, SIGINT and SIGHUP alike. The first lets what is under way end, the second
//! does not.

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What signals ask for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// To stop, in order.
    pub(crate) stop: CancellationToken,
    /// To end at once.
    pub(crate) end: CancellationToken,
}

/// Listens for as long as the program runs.
pub(crate) async fn watch(told: Told) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let listen = |kind: SignalKind| signal(kind).ok();
    let (term, int) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    // Who starts it with nohup wants it to outlive the terminal.
    let hup = if ignores(&status, libc::SIGHUP) { None } else { listen(SignalKind::hangup()) };
    let (Some(mut term), Some(mut int)) = (term, int) else {
        tracing::warn!("signals cannot be watched: stopping will not be graceful");
        return;
    };
    let mut hup = hup;
    next(&mut term, &mut int, hup.as_mut()).await;
    told.stop.cancel();
    next(&mut term, &mut int, hup.as_mut()).await;
    told.end.cancel();
}

async fn next(term: &mut Signal, int: &mut Signal, hup: Option<&mut Signal>) {
    let hung_up = async {
        match hup {
            Some(hup) => hup.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = hung_up => {}
    }
}

/// Whether a process with this `/proc/PID/status` was started with a signal ignored.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(signal - 1).ok().and_then(|bit| 1u64.checked_shl(bit)).unwrap_or(0);
    mask & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_ignored() {
        let status =
            |mask: &str| format!("Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t0000000000000001\n");
        for (mask, hup, int) in [
            ("0000000000000001", true, false),
            ("0000000000001000", false, false),
            ("0000000000000003", true, true),
            ("0000000000000000", false, false),
            ("nonsense", false, false),
        ] {
            let status = status(mask);
            assert_eq!((ignores(&status, libc::SIGHUP), ignores(&status, libc::SIGINT)), (hup, int), "{mask}");
        }
        assert!(!ignores("", libc::SIGHUP));
    }
}
