//! What an agent knows of its host.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::protocol::HostFacts;

/// Lets this process, and the nodes it starts, have as many open files as the system allows.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused the old limit stays, and is what the facts say.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
}

/// The facts of this host; what cannot be read stays empty or zero.
pub(super) fn facts() -> HostFacts {
    HostFacts {
        name: first_line("/proc/sys/kernel/hostname"),
        kernel: first_line("/proc/sys/kernel/osrelease"),
        architecture: std::env::consts::ARCH.to_owned(),
        cores: std::thread::available_parallelism()
            .map_or(0, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes(),
        open_files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        pid: std::process::id(),
        node_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
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
    fn the_facts_of_this_host_are_not_empty() {
        let facts = super::facts();
        assert!(!facts.kernel.is_empty() && !facts.name.is_empty(), "{facts:?}");
        assert!(facts.cores > 0 && facts.memory_bytes > 0 && facts.open_files_max > 0, "{facts:?}");
    }
}
