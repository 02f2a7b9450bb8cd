//! Do hosts reach each other where nodes would? Before any run, each agent listens on a port that a node could have and calls others.
//!
//! Who is called says a token that only the orchestrator has handed out: a connection alone proves little, where a proxy or an
//! unrelated program may answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::ports;
use super::protocol::{Call, DIALS_MAX, Notice, PortRange};

/// How long a host may take to answer a call, and to greet.
const CALL_WAIT: Duration = Duration::from_secs(2);

/// Listens and calls, each in a task of its own. What comes of calls is told later.
pub(super) struct Probe {
    tell: mpsc::Sender<Notice>,
    greeting: Option<AbortHandle>,
    calling: Option<AbortHandle>,
}

impl Probe {
    /// What comes of calls goes to `tell`.
    pub(super) fn new(tell: mpsc::Sender<Notice>) -> Probe {
        Probe { tell, greeting: None, calling: None }
    }

    /// Listens on a port that a node could have, in place of any before; gives back where.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn listen(
        &mut self,
        ip: IpAddr,
        range: Option<PortRange>,
        token: u64,
    ) -> io::Result<SocketAddr> {
        let reservation = ports::reserve(ip, range, 1)?.pop().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let address = reservation.address();
        let listener = reservation.listen()?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let greeting = tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                // So few bytes fit into any socket's buffer: nobody can hold this up. Who is gone misses nothing.
                caller.write_all(&token.to_be_bytes()).await.ok();
            }
        });
        replace(&mut self.greeting, greeting.abort_handle());
        Ok(address)
    }

    /// Calls all of these, at most [`DIALS_MAX`], at once; calls that are under way are given up.
    pub(super) fn dial(&mut self, mut calls: Vec<Call>) {
        calls.truncate(DIALS_MAX);
        let tell = self.tell.clone();
        let calling = tokio::spawn(async move {
            let mut dialling = JoinSet::new();
            let mut failures = vec![Some("it was not called".to_owned()); calls.len()];
            for (index, call) in calls.into_iter().enumerate() {
                dialling.spawn(async move { (index, dial(call).await) });
            }
            while let Some(Ok((index, failure))) = dialling.join_next().await {
                failures[index] = failure;
            }
            // Nobody hears it where the agent is about to end.
            tell.send(Notice::Dialled { failures }).await.ok();
        });
        replace(&mut self.calling, calling.abort_handle());
    }
}

fn replace(task: &mut Option<AbortHandle>, by: AbortHandle) {
    if let Some(before) = task.replace(by) {
        before.abort();
    }
}

/// Calls one; says why it was not reached, if it was not.
async fn dial(call: Call) -> Option<String> {
    let greeted = async {
        let mut stream = TcpStream::connect(call.address).await?;
        let mut greeting = [0; size_of::<u64>()];
        match stream.read_exact(&mut greeting).await {
            Ok(_) if u64::from_be_bytes(greeting) == call.token => Ok(()),
            _ => Err(io::Error::other("something else answers there")),
        }
    };
    match tokio::time::timeout(CALL_WAIT, greeted).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Some("refused".to_owned()),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("timed out after {} s: a firewall?", CALL_WAIT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn who_is_called_is_told_from_others() {
        let (tell, mut told) = mpsc::channel(1);
        let mut probe = Probe::new(tell);
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let address = probe.listen(here, None, 7).unwrap();
        let dead = std::net::TcpListener::bind((here, 0)).unwrap().local_addr().unwrap();
        let silent = std::net::TcpListener::bind((here, 0)).unwrap();
        probe.dial(vec![
            Call { address, token: 7 },
            Call { address, token: 8 },
            Call { address: dead, token: 7 },
            Call { address: silent.local_addr().unwrap(), token: 7 },
        ]);
        let Some(Notice::Dialled { failures }) = told.recv().await else { panic!("nothing was told") };
        let expected = ["something else", "refused", "timed out after 2 s: a firewall?"];
        assert_eq!(failures[0], None);
        for (failure, expected) in failures[1..].iter().zip(expected) {
            assert!(failure.as_ref().unwrap().contains(expected), "{failure:?}");
        }
        let error = probe.listen("192.0.2.1".parse().unwrap(), None, 7).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
