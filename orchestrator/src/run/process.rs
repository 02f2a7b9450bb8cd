//! Processes of this host by their identity: a process number is used again, its start time in the same boot is not.

use std::fs;
use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process of this host, told apart from any other that ever had or will have its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    /// The boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: char,
    session: u32,
    start_ticks: u64,
}

impl ProcessIdentity {
    /// The identity of the process that has this number now; `None` where there is none, or it has ended and was not
    /// reaped yet.
    pub fn of(pid: u32) -> Option<ProcessIdentity> {
        let stat = stat(pid)?;
        let boot_id = boot_id()?;
        (!stat.has_ended()).then_some(ProcessIdentity { pid, start_ticks: stat.start_ticks, boot_id })
    }

    /// Whether this very process still runs.
    pub fn is_running(&self) -> bool {
        ProcessIdentity::of(self.pid).as_ref() == Some(self)
    }

    /// Whether the process was started since this host's last boot.
    pub fn is_of_this_boot(&self) -> bool {
        boot_id().as_ref() == Some(&self.boot_id)
    }

    /// Sends a signal to this very process. `false`: it has ended.
    ///
    /// # Errors
    /// What the system said, where it refused.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
        // The handle is had first and the identity looked at after: whatever the number then means, the handle means it too.
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !self.is_running() {
            return Ok(false);
        }
        match pidfd_send_signal(handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The processes of `leader`'s session that bear one of `names`, but for the leader itself. They are found after the
/// leader's end too: as long as one lives, the system gives the session's number to no other process.
pub fn session_members(leader: &ProcessIdentity, names: &[&str]) -> Vec<ProcessIdentity> {
    if !leader.is_of_this_boot() {
        return Vec::new();
    }
    // Where another process has the leader's number now, the session is that one's.
    if stat(leader.pid).is_some_and(|stat| stat.start_ticks != leader.start_ticks) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_member = |pid: &u32| {
        stat(*pid).is_some_and(|stat| {
            stat.session == leader.pid
                && stat.start_ticks >= leader.start_ticks
                && names.contains(&stat.name.as_str())
        })
    };
    pids.filter(|pid| *pid != leader.pid).filter(is_member).filter_map(ProcessIdentity::of).collect()
}

fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

impl Stat {
    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Reads `PID (name) S ppid pgrp session …`; the name may hold spaces and parentheses.
    fn parse(text: &str) -> Option<Stat> {
        let (before, after) = text.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = after.split_whitespace().collect();
        // The first one is field 3 of proc(5).
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Stat {
            name,
            state: field(3)?.chars().next()?,
            session: field(6)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
        })
    }
}

fn stat(pid: u32) -> Option<Stat> {
    Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_name_with_parentheses_and_spaces_is_read_over() {
        let text = "77 (a) b (c) S 1 77 70 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 123456 1000 100 18446744073709551615";
        let stat = Stat::parse(text).unwrap();
        let expected = Stat { name: "a) b (c".into(), state: 'S', session: 70, start_ticks: 123_456 };
        assert_eq!(stat, expected);
        assert_eq!(Stat::parse("77 (x) S 1"), None);
    }

    #[test]
    fn the_same_number_with_another_start_is_another_process_and_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        let impostor = ProcessIdentity { start_ticks: identity.start_ticks - 1, ..identity.clone() };
        let other_boot = ProcessIdentity { boot_id: "another".into(), ..identity.clone() };
        for stranger in [&impostor, &other_boot] {
            assert!(!stranger.is_running());
            assert!(!stranger.signal(Signal::KILL).unwrap());
        }
        assert!(identity.is_running());
        assert!(identity.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
        assert!(!identity.is_running());
        assert!(!identity.signal(Signal::KILL).unwrap());
    }
}
