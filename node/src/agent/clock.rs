//! The host's clocks: the monotonic one on which everything is timed, and an alarm on it that is exact to microseconds
//! (the runtime's own timers round up to milliseconds).

use std::io;
use std::os::fd::AsFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe;

/// Now on `CLOCK_MONOTONIC`, in microseconds: the clock that all processes of a host share.
pub fn monotonic_us() -> u64 {
    micros(clock_gettime(ClockId::Monotonic))
}

/// Now in microseconds since 1970 (UTC).
pub fn unix_us() -> u64 {
    micros(clock_gettime(ClockId::Realtime))
}

fn micros(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}

/// Rings once, at a moment of the monotonic clock.
pub(super) struct Alarm {
    /// A timer file, which is read like a pipe: eight bytes once it has rung.
    timer: pipe::Receiver,
}

impl Alarm {
    /// An alarm that is not set.
    pub(super) fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Alarm { timer: pipe::Receiver::from_owned_fd_unchecked(timer)? })
    }

    /// Sets it to `at_us`; a moment that has passed rings at once. What was set before is forgotten.
    pub(super) fn set(&self, at_us: u64) -> io::Result<()> {
        // Zero would switch it off.
        let at_us = at_us.max(1);
        let seconds = i64::try_from(at_us / 1_000_000).unwrap_or(i64::MAX);
        let nanos = (at_us % 1_000_000 * 1000) as i64;
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: seconds, tv_nsec: nanos },
        };
        timerfd_settime(self.timer.as_fd(), TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }

    /// Waits until it rings.
    pub(super) async fn ring(&self) -> io::Result<()> {
        loop {
            self.timer.readable().await?;
            match self.timer.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_rings_not_before_its_time_and_at_once_for_the_past() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let alarm = Alarm::new().unwrap();
            let at_us = monotonic_us() + 20_000;
            alarm.set(at_us).unwrap();
            alarm.ring().await.unwrap();
            assert!(monotonic_us() >= at_us);
            for past_us in [0, 1, at_us] {
                alarm.set(past_us).unwrap();
                alarm.ring().await.unwrap();
            }
        });
    }
}
