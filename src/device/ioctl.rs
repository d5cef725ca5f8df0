//! The ioctls of block and loop devices, and nothing else: the only `unsafe` of this crate.
//!
//! Numbers and layouts are those of `linux/fs.h` and `linux/loop.h`. Each function wraps one call
//! and answers the kernel's error as it is. Not covered: when it is right to call them.

#![allow(unsafe_code, reason = "ioctl has no safe form; each call carries its own argument")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

const BLKROSET: libc::c_ulong = 0x125d;
const BLKROGET: libc::c_ulong = 0x125e;
const BLKSSZGET: libc::c_ulong = 0x1268;
const BLKPBSZGET: libc::c_ulong = 0x127b;
const BLKDISCARD: libc::c_ulong = 0x1277;
const BLKZEROOUT: libc::c_ulong = 0x127f;
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
const BLKGETDISKSEQ: libc::c_ulong = 0x8008_1280;
const LOOP_CLR_FD: libc::c_ulong = 0x4c01;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);

/// Reads one value that the kernel writes through a pointer.
fn get<T: Copy + Default>(fd: impl AsFd, request: libc::c_ulong) -> io::Result<T> {
    let mut value = T::default();
    // SAFETY: every caller passes a request that writes exactly one `T` through its pointer, and
    // `value` outlives the call.
    let answer = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, &raw mut value) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Makes a call that takes a plain number and answers one.
fn call(fd: impl AsFd, request: libc::c_ulong, arg: libc::c_ulong) -> io::Result<u32> {
    // SAFETY: every caller passes a request whose argument is a number or ignored.
    let answer = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, arg) };
    u32::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// Makes a call that reads an offset and a length in bytes.
fn range(fd: impl AsFd, request: libc::c_ulong, at: u64, len: u64) -> io::Result<()> {
    let span = [at, len];
    // SAFETY: BLKDISCARD and BLKZEROOUT read two u64 through the pointer; `span` outlives the call.
    let answer = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, span.as_ptr()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Size of a block device in bytes.
///
/// # Errors
/// The kernel's, for example ENOTTY on a file.
pub fn size_bytes(fd: impl AsFd) -> io::Result<u64> {
    get(fd, BLKGETSIZE64)
}

/// Whether the device is set read-only (opening it for writing succeeds all the same).
///
/// # Errors
/// The kernel's.
pub fn is_read_only(fd: impl AsFd) -> io::Result<bool> {
    get::<libc::c_int>(fd, BLKROGET).map(|flag| flag != 0)
}

/// Takes a read-only mark off the device (`blockdev --setro` puts one on).
///
/// # Errors
/// The kernel's.
pub fn clear_read_only(fd: impl AsFd) -> io::Result<()> {
    let flag: libc::c_int = 0;
    // SAFETY: BLKROSET reads one int through the pointer; `flag` outlives the call.
    let answer = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), BLKROSET, &raw const flag) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Logical sector size in bytes: the unit of I/O.
///
/// # Errors
/// The kernel's.
pub fn logical_sector_bytes(fd: impl AsFd) -> io::Result<u32> {
    get::<libc::c_int>(fd, BLKSSZGET).map(libc::c_int::unsigned_abs)
}

/// Physical sector size in bytes.
///
/// # Errors
/// The kernel's.
pub fn physical_sector_bytes(fd: impl AsFd) -> io::Result<u32> {
    get(fd, BLKPBSZGET)
}

/// Sequence number of the disk: changes whenever another disk takes over the node.
///
/// # Errors
/// The kernel's; ENOTTY before Linux 5.15.
pub fn disk_seq(fd: impl AsFd) -> io::Result<u64> {
    get(fd, BLKGETDISKSEQ)
}

/// Discards `len` bytes from byte `at`.
///
/// # Errors
/// The kernel's; EOPNOTSUPP where the device has no discard.
pub fn discard(fd: impl AsFd, at: u64, len: u64) -> io::Result<()> {
    range(fd, BLKDISCARD, at, len)
}

/// Zeroes `len` bytes from byte `at` by the device's own command.
///
/// # Errors
/// The kernel's.
pub fn zero_out(fd: impl AsFd, at: u64, len: u64) -> io::Result<()> {
    range(fd, BLKZEROOUT, at, len)
}

/// Number of a loop device that is free now; somebody else may take it first.
///
/// # Errors
/// The kernel's.
pub fn loop_get_free(control: &File) -> io::Result<u32> {
    call(control, LOOP_CTL_GET_FREE, 0)
}

/// Puts `backing` behind the loop device, with direct I/O, detached by itself at the last close.
///
/// `block_size` is the logical sector size in bytes.
///
/// # Errors
/// The kernel's; EBUSY when somebody else took the device.
pub fn loop_configure(device: &File, backing: &File, block_size: u32) -> io::Result<()> {
    let config = LoopConfig {
        fd: backing.as_raw_fd().unsigned_abs(),
        block_size,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, whose layout `LoopConfig` has (checked
    // above); `config` and both files outlive the call.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes the backing file away from a loop device (at its last close, if it is open elsewhere).
///
/// # Errors
/// The kernel's.
pub fn loop_clear(device: &File) -> io::Result<()> {
    call(device, LOOP_CLR_FD, 0).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_is_no_block_device() {
        let file = tempfile::tempfile().expect("a temporary file");
        let not_a_device = Some(libc::ENOTTY);
        assert_eq!(size_bytes(&file).map_err(|e| e.raw_os_error()), Err(not_a_device));
        assert_eq!(is_read_only(&file).map_err(|e| e.raw_os_error()), Err(not_a_device));
        assert!(disk_seq(&file).is_err());
        assert!(discard(&file, 0, 4096).is_err());
    }
}
