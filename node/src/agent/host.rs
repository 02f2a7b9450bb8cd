//! What an agent knows of its host.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::kernel::Refusals;
use super::protocol::HostFacts;

/// The open files of an agent that has no nodes, at most.
const OPEN_FILES_OF_AGENT: usize = 64;

/// This very binary: what an agent starts is what it is itself.
pub(super) fn executable() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        // It was replaced or removed meanwhile; the kernel still has it.
        _ => Path::new("/proc/self/exe").to_owned(),
    }
}

/// Lets this process, and the nodes it starts, have as many open files and processes as the system allows.
pub(super) fn raise_limits() {
    for resource in [Resource::Nofile, Resource::Nproc] {
        let limit = getrlimit(resource);
        // Where it is refused the old limit stays, and is what the facts say.
        setrlimit(resource, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
    }
}

/// Sees to it that this process, and those that it starts, may have `wanted` open files, where that is permitted. Gives back
/// how many they may have.
pub(super) fn have_open_files(wanted: u64) -> u64 {
    let allowed = || getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Only root may raise the hard limit, and no higher than this.
    let most = first_line("/proc/sys/fs/nr_open").parse().unwrap_or(u64::MAX);
    let wanted = wanted.min(most);
    if allowed() < wanted {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(wanted) }).ok();
    }
    allowed()
}

/// Makes the kernel's table of this process's open files large enough for `files` of them, and for those that are open.
///
/// It would grow with the number of open files, and each time let all wait that share it: an agent was seen to act 15 ms late.
pub(super) fn make_room_for_open_files(files: usize) {
    let last = i32::try_from(files + OPEN_FILES_OF_AGENT).unwrap_or(i32::MAX);
    // The table is as large as its highest number needs, and never shrinks. Where that is not allowed, it grows as ever.
    rustix::io::fcntl_dupfd_cloexec(io::stdin(), last).ok();
}

/// The system allows too few open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{needed} open files are needed, but the system allows this process {allowed}: raise the hard limit (`ulimit -Hn`, \
     LimitNOFILE=, /etc/security/limits.conf; `sysctl fs.nr_open` bounds it), run fewer nodes a host, or use `isolation: process`"
)]
pub(super) struct TooFewOpenFiles {
    pub(super) needed: u64,
    pub(super) allowed: u64,
}

/// The facts of this host; what cannot be read stays empty or zero.
pub(super) fn facts() -> HostFacts {
    let Refusals { faults, bandwidth, latency } = super::kernel::refusals();
    HostFacts {
        name: first_line("/proc/sys/kernel/hostname"),
        kernel: first_line("/proc/sys/kernel/osrelease"),
        architecture: std::env::consts::ARCH.to_owned(),
        cores: std::thread::available_parallelism()
            .map_or(0, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes(),
        open_files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        processes_max: processes_max(),
        pid: std::process::id(),
        node_version: env!("CARGO_PKG_VERSION").to_owned(),
        no_kernel_faults: faults,
        no_kernel_bandwidth: bandwidth,
        no_kernel_latency: latency,
    }
}

/// The smallest of the limits that hold for this process: the user's, and those of the control groups that it is in.
fn processes_max() -> u64 {
    let mut limit = getrlimit(Resource::Nproc).current.unwrap_or(u64::MAX);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Version 2's line has no controllers; of version 1, the line of `pids`.
    let group = |line: &str| match line.splitn(3, ':').collect::<Vec<&str>>()[..] {
        [_, "", path] => Some(format!("/sys/fs/cgroup{path}")),
        [_, "pids", path] => Some(format!("/sys/fs/cgroup/pids{path}")),
        _ => None,
    };
    for directory in groups.lines().filter_map(group) {
        for directory in Path::new(&directory).ancestors() {
            let text = std::fs::read_to_string(directory.join("pids.max")).unwrap_or_default();
            // No number: `max`, which is none, or no such file.
            limit = limit.min(text.trim().parse().unwrap_or(u64::MAX));
        }
    }
    limit
}

fn first_line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_more_open_files_are_had_than_the_system_allows() {
        let allowed = super::have_open_files(16);
        assert!(allowed >= 16);
        assert_eq!(super::have_open_files(1 << 40), allowed, "more than any system allows");
    }

    #[test]
    fn the_facts_of_this_host_are_not_empty() {
        let facts = super::facts();
        assert!(!facts.kernel.is_empty() && !facts.name.is_empty(), "{facts:?}");
        assert!(facts.cores > 0 && facts.memory_bytes > 0 && facts.open_files_max > 0, "{facts:?}");
        assert!(facts.processes_max > 0, "{facts:?}");
    }
}
