//! The system calls that have no safe wrapper: ioctls of block devices, NVMe controllers and the IPMI
//! driver, `kexec_file_load`, and `chroot` between fork and exec. The one file of the workspace that may use `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_long, c_short, c_uint, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::realmode::Segment;

mod ioctl {
    nix::ioctl_write_ptr_bad!(blkroset, 0x125d, std::ffi::c_int);
    nix::ioctl_read_bad!(blkroget, 0x125e, std::ffi::c_int);
    nix::ioctl_none!(blkrrpart, 0x12, 95);
    nix::ioctl_none!(blkflsbuf, 0x12, 97);
    nix::ioctl_read_bad!(blksszget, 0x1268, std::ffi::c_int);
    nix::ioctl_read!(blkgetsize64, 0x12, 114, usize);
    nix::ioctl_write_ptr_bad!(blkzeroout, 0x127f, [u64; 2]);
    nix::ioctl_read!(getflags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(setflags, b'f', 2, libc::c_long);
    nix::ioctl_write_ptr_bad!(blkpg, 0x1269, super::BlkpgArg);
    nix::ioctl_readwrite!(ipmi_receive_message, b'i', 11, super::IpmiReceived);
    nix::ioctl_read!(ipmi_send_command, b'i', 13, super::IpmiRequest);
    nix::ioctl_readwrite!(nvme_admin, b'N', 0x41, super::NvmeCommand);
}

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
struct BlkpgArg {
    op: c_int,
    flags: c_int,
    datalen: c_int,
    data: *mut c_void,
}

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    pno: c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

/// What the kernel is told of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blkpg {
    Add = 1,
    Remove = 2,
    Resize = 3,
}

/// Size of a block device in bytes.
pub(crate) fn size(device: &File) -> io::Result<u64> {
    // The kernel writes a u64 whatever the name of the constant says (linux/fs.h); all our targets
    // are of 64 bits.
    let mut bytes: usize = 0;
    // SAFETY: the descriptor is open, the pointer is to a live variable of the size that is written.
    unsafe { ioctl::blkgetsize64(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes as u64)
}

/// Logical sector size of a block device in bytes.
pub(crate) fn sector(device: &File) -> io::Result<u32> {
    let mut bytes: c_int = 0;
    // SAFETY: as above; the kernel writes an int.
    unsafe { ioctl::blksszget(device.as_raw_fd(), &raw mut bytes) }?;
    u32::try_from(bytes).map_err(|_| io::Error::other(format!("a sector size of {bytes}")))
}

/// Whether the kernel lets nobody write to a block device.
pub(crate) fn is_read_only(device: &File) -> io::Result<bool> {
    let mut flag: c_int = 0;
    // SAFETY: the descriptor is open, the pointer is to a live variable; the kernel writes an int.
    unsafe { ioctl::blkroget(device.as_raw_fd(), &raw mut flag) }?;
    Ok(flag != 0)
}

/// Has the kernel let nobody write to a block device, or let them again.
pub(crate) fn set_read_only(device: &File, on: bool) -> io::Result<()> {
    let flag = c_int::from(on);
    // SAFETY: as above; the kernel reads an int.
    unsafe { ioctl::blkroset(device.as_raw_fd(), &raw const flag) }?;
    Ok(())
}

/// Asks the kernel to read the partition table again.
pub(crate) fn reread(device: &File) -> io::Result<()> {
    // SAFETY: takes no pointer.
    unsafe { ioctl::blkrrpart(device.as_raw_fd()) }?;
    Ok(())
}

/// Writes out and drops what the kernel has cached of a device.
pub(crate) fn flush(device: &File) -> io::Result<()> {
    // SAFETY: takes no pointer.
    unsafe { ioctl::blkflsbuf(device.as_raw_fd()) }?;
    Ok(())
}

/// Asks the kernel to begin writing a range of its cache to the device, and does not wait.
pub(crate) fn begin_writeback(device: &File, offset: u64, length: u64) -> io::Result<()> {
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, "beyond what the kernel counts");
    let (offset, length) = (i64::try_from(offset).map_err(wrong)?, i64::try_from(length).map_err(wrong)?);
    // SAFETY: takes no pointer.
    match unsafe { libc::sync_file_range(device.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a range read as zeros, by the device's own means where it has any.
pub(crate) fn zero_out(device: &File, offset: u64, length: u64) -> io::Result<()> {
    let range = [offset, length];
    // SAFETY: the kernel reads two u64.
    unsafe { ioctl::blkzeroout(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}

/// Tells the kernel of one partition; places in bytes.
pub(crate) fn tell(device: &File, what: Blkpg, number: u32, start: u64, length: u64) -> io::Result<()> {
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, "beyond what the kernel counts");
    let mut partition = BlkpgPartition {
        start: i64::try_from(start).map_err(wrong)?,
        length: i64::try_from(length).map_err(wrong)?,
        pno: c_int::try_from(number).map_err(wrong)?,
        devname: [0; 64],
        volname: [0; 64],
    };
    let arg = BlkpgArg {
        op: what as c_int,
        flags: 0,
        datalen: std::mem::size_of::<BlkpgPartition>() as c_int,
        data: (&raw mut partition).cast(),
    };
    // SAFETY: the kernel reads both structures, which outlive the call and have its layout.
    unsafe { ioctl::blkpg(device.as_raw_fd(), &raw const arg) }?;
    Ok(())
}

/// Loads a kernel that the next `reboot(KEXEC)` starts.
pub(crate) fn kexec_file_load(kernel: &File, initrd: Option<&File>, command_line: &str) -> io::Result<()> {
    const KEXEC_FILE_NO_INITRAMFS: libc::c_ulong = 4;
    let line = CString::new(command_line)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the command line holds a null byte"))?;
    let flags = if initrd.is_some() { 0 } else { KEXEC_FILE_NO_INITRAMFS };
    // SAFETY: both descriptors are open; the kernel reads `length` bytes, its null byte included.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            libc::c_long::from(kernel.as_raw_fd()),
            libc::c_long::from(initrd.map_or(-1, AsRawFd::as_raw_fd)),
            line.as_bytes_with_nul().len() as libc::c_ulong,
            line.as_ptr(),
            flags,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(include_str!("realmode.s"));

/// The way from where kexec enters into real mode.
#[cfg(target_arch = "x86_64")]
pub(crate) fn real_mode_entry() -> &'static [u8] {
    unsafe extern "C" {
        static dragonfly_realmode_start: u8;
        static dragonfly_realmode_end: u8;
    }
    // SAFETY: both symbols are in realmode.s, the end after the start, in one read-only section.
    unsafe {
        let (start, end) = (&raw const dragonfly_realmode_start, &raw const dragonfly_realmode_end);
        std::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    }
}

/// Only PCs have a real mode.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn real_mode_entry() -> &'static [u8] {
    &[]
}

/// `struct kexec_segment` of linux/kexec.h.
#[repr(C)]
struct KexecSegment {
    bytes: *const c_void,
    size: libc::size_t,
    at: libc::c_ulong,
    length: libc::size_t,
}

/// Loads pieces of memory that the next `reboot(KEXEC)` lays out and enters at `entry`.
pub(crate) fn kexec_load(entry: u64, segments: &[Segment]) -> io::Result<()> {
    let table: Vec<KexecSegment> = segments
        .iter()
        .map(|segment| KexecSegment {
            bytes: segment.bytes.as_ptr().cast(),
            size: segment.bytes.len(),
            at: segment.at as libc::c_ulong,
            length: segment.length as libc::size_t,
        })
        .collect();
    // Flags: of this machine's own architecture.
    let flags: libc::c_ulong = 0;
    // SAFETY: the kernel reads the table and the bytes it points to, all of which outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_kexec_load, entry as libc::c_ulong, table.len() as libc::c_ulong, table.as_ptr(), flags)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a command run with another root, in a session of its own.
pub(crate) fn enter(command: &mut Command, root: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let root = CString::new(root.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path holds a null byte"))?;
    // SAFETY: between fork and exec only async-signal-safe calls are made, on memory that was
    // prepared before the fork.
    unsafe {
        command.pre_exec(move || {
            let slash = c"/";
            if libc::setsid() < 0 || libc::chroot(root.as_ptr()) < 0 || libc::chdir(slash.as_ptr()) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(())
}

/// Takes the immutable flag from an open file; a file system that knows no flags has none.
pub(crate) fn clear_immutable(file: &File) -> io::Result<()> {
    /// `FS_IMMUTABLE_FL` of linux/fs.h.
    const IMMUTABLE: libc::c_long = 0x10;
    // The kernel reads and writes an int, though the constants are made for a long (linux/fs.h).
    let mut flags: libc::c_long = 0;
    // SAFETY: the descriptor is open, the pointer is to a live variable at least as large as what is written.
    match unsafe { ioctl::getflags(file.as_raw_fd(), &raw mut flags) } {
        Ok(_) => {}
        Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::EOPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if flags & IMMUTABLE == 0 {
        return Ok(());
    }
    let flags = flags & !IMMUTABLE;
    // SAFETY: as above; the kernel only reads.
    unsafe { ioctl::setflags(file.as_raw_fd(), &raw const flags) }?;
    Ok(())
}

/// `struct ipmi_system_interface_addr` of linux/ipmi.h.
#[repr(C)]
struct IpmiAddress {
    kind: c_int,
    channel: c_short,
    lun: u8,
}

/// `struct ipmi_msg` of linux/ipmi_msgdefs.h.
#[repr(C)]
struct IpmiMessage {
    netfn: u8,
    command: u8,
    length: u16,
    data: *mut u8,
}

/// `struct ipmi_req` of linux/ipmi.h.
#[repr(C)]
struct IpmiRequest {
    address: *mut IpmiAddress,
    address_length: c_uint,
    number: c_long,
    message: IpmiMessage,
}

/// `struct ipmi_recv` of linux/ipmi.h.
#[repr(C)]
struct IpmiReceived {
    kind: c_int,
    address: *mut IpmiAddress,
    address_length: c_uint,
    number: c_long,
    message: IpmiMessage,
}

/// Hands a command for the machine's own management controller to the kernel; its answer will bear the
/// same number.
pub(crate) fn ipmi_send(device: &File, number: c_long, netfn: u8, command: u8, data: &[u8]) -> io::Result<()> {
    /// `IPMI_SYSTEM_INTERFACE_ADDR_TYPE` and `IPMI_BMC_CHANNEL`.
    const ITSELF: (c_int, c_short) = (0x0c, 0x0f);
    let length = u16::try_from(data.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "longer than any IPMI command"))?;
    let mut data = data.to_vec();
    let mut address = IpmiAddress { kind: ITSELF.0, channel: ITSELF.1, lun: 0 };
    let mut request = IpmiRequest {
        address: &raw mut address,
        address_length: std::mem::size_of::<IpmiAddress>() as c_uint,
        number,
        message: IpmiMessage { netfn, command, length, data: data.as_mut_ptr() },
    };
    // SAFETY: the kernel reads the request, the address and `length` bytes of data, all of which outlive
    // the call, and keeps none of the pointers.
    unsafe { ioctl::ipmi_send_command(device.as_raw_fd(), &raw mut request) }?;
    Ok(())
}

/// Takes an answer that the kernel holds, if it is one: its command's number and how many bytes of it
/// are in `into`. Events that nobody asked for are taken and give `None`; an answer longer than `into` is
/// cut off.
pub(crate) fn ipmi_receive(device: &File, into: &mut [u8]) -> io::Result<Option<(c_long, usize)>> {
    /// `IPMI_RESPONSE_RECV_TYPE`.
    const RESPONSE: c_int = 1;
    /// Room for the longest address there is, `IPMI_MAX_ADDR_SIZE`, and its alignment.
    const ADDRESS: usize = 32 / std::mem::size_of::<IpmiAddress>();
    let mut addresses = [const { IpmiAddress { kind: 0, channel: 0, lun: 0 } }; ADDRESS];
    let room = u16::try_from(into.len()).unwrap_or(u16::MAX);
    let mut received = IpmiReceived {
        kind: 0,
        address: addresses.as_mut_ptr(),
        address_length: std::mem::size_of_val(&addresses) as c_uint,
        number: 0,
        message: IpmiMessage { netfn: 0, command: 0, length: room, data: into.as_mut_ptr() },
    };
    // SAFETY: the kernel writes at most `address_length` and `length` bytes where the two pointers say;
    // both outlive the call.
    match unsafe { ioctl::ipmi_receive_message(device.as_raw_fd(), &raw mut received) } {
        // EMSGSIZE: it was longer than its room.
        Ok(_) | Err(nix::errno::Errno::EMSGSIZE) => {}
        Err(error) => return Err(error.into()),
    }
    let length = usize::from(received.message.length).min(into.len());
    Ok((received.kind == RESPONSE).then_some((received.number, length)))
}

/// `struct nvme_passthru_cmd` of linux/nvme_ioctl.h.
#[repr(C)]
struct NvmeCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    words_2_3: [u32; 2],
    metadata: u64,
    data: u64,
    metadata_length: u32,
    data_length: u32,
    words_10_15: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

/// Has an NVMe controller fill `into` by an administrative command that reads: opcodes whose lowest two
/// bits are 10b (NVM Express base specification, "Opcode").
pub(crate) fn nvme_admin_read(
    device: &File,
    opcode: u8,
    namespace: u32,
    words: [u32; 6],
    into: &mut [u8],
) -> io::Result<()> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    if opcode & 0b11 != 0b10 {
        return Err(wrong("an NVMe command that does not read"));
    }
    let mut command = NvmeCommand {
        opcode,
        flags: 0,
        reserved: 0,
        namespace,
        words_2_3: [0; 2],
        metadata: 0,
        data: into.as_mut_ptr() as u64,
        metadata_length: 0,
        data_length: u32::try_from(into.len()).map_err(|_| wrong("longer than any NVMe answer"))?,
        words_10_15: words,
        // The kernel's own limit; a shorter one would have it reset a disk that is merely busy.
        timeout_ms: 0,
        result: 0,
    };
    // SAFETY: the kernel writes at most `data_length` bytes where `data` points, which outlives the call.
    match unsafe { ioctl::nvme_admin(device.as_raw_fd(), &raw mut command) }? {
        0 => Ok(()),
        status => Err(io::Error::other(format!("NVMe status {status:#x}"))),
    }
}
