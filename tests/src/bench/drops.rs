//! Packets that the kernel threw away because a socket's buffer was full: who lost what, ours or the client.

use anyhow::{Context as _, Result};

/// How many packets were dropped on the UDP sockets of `port`, as seen in `/proc/{process}/net/udp`.
pub(crate) fn dropped(process: &str, port: u16) -> Result<u64> {
    let path = format!("/proc/{process}/net/udp");
    Ok(of_port(&std::fs::read_to_string(&path).context(path)?, port))
}

fn of_port(table: &str, port: u16) -> u64 {
    let end = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // The second column is the local address; drops are the last.
    let ours = rows.filter(|row| row.get(1).is_some_and(|local| local.ends_with(&end)));
    ours.filter_map(|row| row.last()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_one_port_are_added_up() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                     245: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9 2 0000000000000000 411\n\
                     246: 0100000A:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9 2 0000000000000000 2\n\
                     247: 00000000:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9 2 0000000000000000 7\n";
        assert_eq!((of_port(table, 67), of_port(table, 69), of_port(table, 68)), (413, 7, 0));
        assert_eq!(of_port("", 67), 0);
    }
}
