//! The command `p2ps-node`: a node by hand, a managed node, or a host's agent.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to people")]

use std::ffi::OsStr;
use std::io::BufRead;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use p2ps::access_point::AccessPoint;
use p2ps::com::key::NetworkKey;
use p2ps::config::{Geometry, NetConfig, ProxyUse};
use p2ps::control::managed;
use p2ps::id::{Id, Ring};
use p2ps::metrics::endpoint::Endpoint;
use p2ps::node::{Event, Events, Message, Messages, Node, NodeConfig, NodeEvent};
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroize::Zeroizing;

/// The longest first line of standard input that is read for a key, in bytes.
const KEY_LINE_BYTES_MAX: u64 = 256;

/// Exit code: it could not be done.
const COULD_NOT: u8 = 3;

/// Exit code: ended by a second Ctrl-C.
const INTERRUPTED: u8 = 130;

/// How many refused connections are told of.
const REFUSALS_TOLD_MAX: u32 = 100;

fn main() -> ExitCode {
    // A managed node is started by the hundred: it does without the command line's parser.
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.iter().map(|argument| argument.as_os_str()).eq(["run", "--managed"].map(OsStr::new)) {
        return managed::run();
    }
    let done = match Cli::parse().command {
        Cmd::Run(options) => run(&options),
        Cmd::Agent(role) => agent(&role),
        Cmd::NewKey => new_key(),
    };
    done.unwrap_or_else(|error: Box<dyn std::error::Error>| {
        eprintln!("p2ps-node: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            if !error.to_string().contains(&cause.to_string()) {
                eprintln!("  because: {cause}");
            }
            source = cause.source();
        }
        ExitCode::from(COULD_NOT)
    })
}

/// A node of a P2PS network.
#[derive(Parser)]
#[command(name = "p2ps-node", version)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Run a node: create a network, or join one.
    Run(Box<RunOptions>),
    /// Own the nodes of this host for an orchestrator, on standard input and output.
    Agent(AgentRole),
    /// Print a fresh network key, for run --network-key-stdin.
    NewKey,
}

/// What an agent is, or else a process that it starts itself.
#[derive(Args)]
struct AgentRole {
    /// Be a worker process of an agent.
    #[arg(long, group = "role")]
    worker: bool,
    /// Be the sentinel of an agent: kill it where it is silent for so many milliseconds.
    #[arg(long, value_name = "MS", group = "role")]
    sentinel: Option<u64>,
    /// Be the keeper of an agent: own the queues by which the kernel degrades links.
    #[arg(long, group = "role")]
    keeper: bool,
    /// Remove the queues that agents have left that were killed with their keepers, and end.
    #[arg(long, group = "role")]
    sweep: bool,
}

#[derive(Args)]
struct RunOptions {
    /// Where to accept links; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where others reach this node, if not where it listens: p2ps://host:port.
    #[arg(long)]
    advertise: Option<AccessPoint>,
    /// The node's place on the ring; drawn at random where it is not given.
    #[arg(long)]
    id: Option<Id>,
    /// Join the network of this access point (p2ps://host:port); may be given several times, they are tried in turn.
    #[arg(long)]
    join: Vec<AccessPoint>,
    /// Serve Prometheus metrics on http://ADDRESS/metrics.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// The number of ids on the ring, such as 65536 or 2^32 [default: 2^32, or the joined network's].
    #[arg(long, value_name = "SIZE")]
    max_size: Option<Ring>,
    /// The link table: chord, dks:K, tango:K or tango:K:symmetric [default: tango:5:symmetric, or the joined network's].
    #[arg(long, value_parser = geometry)]
    geometry: Option<Geometry>,
    /// The length of the successor list, 1 to 32 [default: 8, or the joined network's].
    #[arg(long, value_name = "COUNT")]
    successors: Option<u8>,
    /// Read the network's key from the first line of standard input: links are encrypted, and nodes without it stay outside.
    #[arg(long)]
    network_key_stdin: bool,
    /// In how many places each key of the dictionary is, 1 to 16 [default: 3, or the joined network's].
    #[arg(long, value_name = "COUNT")]
    replication: Option<u8>,
    /// When another node stands in for this one, which is a client then and answers for no keys: if-unreachable, always
    /// (it accepts no links) or never.
    #[arg(long, value_name = "WHEN", default_value = "if-unreachable", value_parser = proxy_use)]
    proxy: ProxyUse,
    /// Be a managed node: JSON lines on standard input and output. No other option goes with it.
    #[arg(long, exclusive = true)]
    managed: bool,
}

impl RunOptions {
    /// The network's settings; `None` where none was given: a network that is joined tells them.
    fn net(&self) -> Result<Option<NetConfig>, p2ps::config::ConfigError> {
        let counts = [self.successors, self.replication];
        if self.max_size.is_none() && self.geometry.is_none() && counts == [None, None] {
            return Ok(None);
        }
        let default = NetConfig::default();
        let successors = self.successors.unwrap_or(default.successors() as u8);
        let geometry = self.geometry.unwrap_or(default.geometry());
        let net = NetConfig::new(self.max_size.unwrap_or(default.ring()), geometry, successors)?;
        net.with_replication(self.replication.unwrap_or(default.replication())).map(Some)
    }
}

fn geometry(text: &str) -> Result<Geometry, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let arity =
        |k: &str| k.parse::<u16>().map_err(|_| format!("{k:?} is no arity: write a number such as 5"));
    let geometry = match parts[..] {
        ["chord"] => Geometry::Chord,
        ["dks", k] => Geometry::Dks { k: arity(k)? },
        ["tango", k] => Geometry::Tango { k: arity(k)?, symmetric: false },
        ["tango", k, "symmetric"] => Geometry::Tango { k: arity(k)?, symmetric: true },
        _ => return Err("write chord, dks:4, tango:5 or tango:5:symmetric".to_owned()),
    };
    geometry.checked().map_err(|error| error.to_string())
}

fn proxy_use(text: &str) -> Result<ProxyUse, String> {
    match text {
        "if-unreachable" => Ok(ProxyUse::IfUnreachable),
        "always" => Ok(ProxyUse::Always),
        "never" => Ok(ProxyUse::Never),
        _ => Err("write if-unreachable, always or never".to_owned()),
    }
}

fn agent(role: &AgentRole) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match *role {
        AgentRole { sentinel: Some(lease_ms), .. } => {
            p2ps::agent::run_sentinel(Duration::from_millis(lease_ms))?
        }
        AgentRole { worker: true, .. } => p2ps::agent::run_worker()?,
        AgentRole { keeper: true, .. } => p2ps::agent::run_keeper()?,
        AgentRole { sweep: true, .. } => {
            for interface in p2ps::agent::sweep_queues()? {
                println!("{interface}");
            }
        }
        _ => p2ps::agent::run()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn new_key() -> Result<ExitCode, Box<dyn std::error::Error>> {
    println!("{}", *NetworkKey::random()?.reveal());
    Ok(ExitCode::SUCCESS)
}

/// The network's key from the first line of `input`.
fn read_network_key(input: impl BufRead) -> Result<NetworkKey, Box<dyn std::error::Error>> {
    let mut line = Zeroizing::new(String::new());
    input.take(KEY_LINE_BYTES_MAX).read_line(&mut line)?;
    Ok(line.trim().parse()?)
}

fn run(options: &RunOptions) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if options.managed {
        return Ok(managed::run());
    }
    let net = match options.net() {
        Ok(net) => net,
        Err(error) => {
            eprintln!("p2ps-node: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let network_key = options.network_key_stdin.then(|| read_network_key(std::io::stdin().lock()));
    let network_key = match network_key.transpose() {
        Ok(network_key) => network_key,
        Err(error) => {
            eprintln!("p2ps-node: no network key on standard input: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(by_hand(options, net, network_key))
}

async fn by_hand(
    options: &RunOptions,
    net: Option<NetConfig>,
    network_key: Option<NetworkKey>,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let config = NodeConfig {
        id: options.id,
        listen: options.listen,
        advertise: options.advertise,
        network_key,
        proxy: options.proxy,
        ..NodeConfig::default()
    };
    let mut signals = Signals::new()?;
    let enter = async {
        match options.join.as_slice() {
            [] => Node::create_net(net.unwrap_or_default(), config).await,
            access_points => Node::join_net(access_points, config, net).await,
        }
    };
    let (node, messages, events) = tokio::select! {
        entered = enter => entered?,
        () = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    println!("access point  {}", node.access_point());
    println!("id            {}", node.id());
    println!("network       {}", node.net());
    let endpoint = options.metrics.map(|listen| {
        let node = node.clone();
        Endpoint::serve(listen, move || node.snapshot())
            .map_err(|error| format!("cannot serve metrics on {listen}: {error}"))
    });
    let _endpoint = match endpoint.transpose()? {
        Some(endpoint) => {
            println!("metrics       http://{}/metrics", endpoint.address());
            Some(endpoint)
        }
        None => None,
    };
    match options.join.is_empty() {
        true => println!("created a network; join it with: p2ps-node run --join {}", node.access_point()),
        false => match node.proxy() {
            Some(proxy) => println!("client of     {} at {}", proxy.id, proxy.access_point),
            None => println!("joined the network"),
        },
    }
    tokio::select! {
        () = tell(messages, events) => {}
        () = signals.next() => {}
    }
    println!("leaving (Ctrl-C again: at once)");
    let is_client = node.proxy().is_some();
    let alone = node.successors().is_empty();
    tokio::select! {
        left = node.leave() => match left? {
            _ if is_client => println!("left: the proxy knows"),
            _ if alone => println!("left: the network ends"),
            true => println!("left: the successor has taken over"),
            false => println!("left: nobody could take over"),
        },
        () = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Ctrl-C, or a service manager's wish that the node end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Prints what comes, until the node stops.
async fn tell(mut messages: Messages, mut events: Events) {
    let mut refusals = 0;
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(Message { source, destination, payload }) => {
                    println!("message from {source} to {destination}: {}", payload.escape_ascii());
                }
                None => return,
            },
            event = events.next() => match event {
                // Whoever knocks at the port could fill the terminal.
                Some(NodeEvent::Refused { .. }) if refusals == REFUSALS_TOLD_MAX => {}
                Some(event) => {
                    refusals += u32::from(matches!(event, NodeEvent::Refused { .. }));
                    tell_event(&event);
                }
                None => return,
            },
        }
    }
}

fn tell_event(event: &NodeEvent) {
    match event {
        NodeEvent::Overlay(Event::NewSuccessor(contact)) => {
            println!("successor     {} at {}", contact.id, contact.access_point);
        }
        NodeEvent::Overlay(Event::NewPredecessor(Some(contact))) => {
            println!("predecessor   {} at {}", contact.id, contact.access_point);
        }
        NodeEvent::Overlay(Event::NewPredecessor(None)) => println!("predecessor   unknown"),
        NodeEvent::Overlay(Event::NewProxy(Some(proxy))) => {
            println!("proxy         {} at {}", proxy.id, proxy.access_point);
        }
        NodeEvent::Overlay(Event::NewProxy(None)) => println!("proxy         looking for another one"),
        NodeEvent::Overlay(Event::ClientJoined(client)) => println!("client        {} joined", client.id),
        NodeEvent::Overlay(Event::ClientLeft(client)) => println!("client        {} left", client.id),
        NodeEvent::Overlay(Event::Alone) => println!("alone in the network"),
        NodeEvent::Overlay(Event::Suspected(contact)) => {
            println!("lost          {} at {} does not answer", contact.id, contact.access_point);
        }
        NodeEvent::Overlay(Event::Undelivered { destination, reason }) => {
            println!("undelivered   message to {destination}: {reason}");
        }
        NodeEvent::Refused { access_point, error } => eprintln!("refused       {access_point}: {error}"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_first_line_and_what_is_none_is_not_repeated() {
        let key = NetworkKey::random().unwrap();
        let line = format!(" {}\r\nmore\n", *key.reveal());
        assert_eq!(read_network_key(line.as_bytes()).unwrap(), key);
        assert_eq!(read_network_key(key.reveal().as_bytes()).unwrap(), key);
        let text = format!("{}x\n", &key.reveal()[1..]);
        let error = read_network_key(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("character 64") && !error.contains(text.trim()), "{error}");
        assert!(
            read_network_key(&[b'a'; 1 << 20][..]).unwrap_err().to_string().contains("not 256 characters")
        );
        assert!(read_network_key(&b""[..]).is_err());
    }

    #[test]
    fn geometries_are_read_as_the_help_says() {
        assert_eq!(geometry("chord"), Ok(Geometry::Chord));
        assert_eq!(geometry("dks:4"), Ok(Geometry::Dks { k: 4 }));
        assert_eq!(geometry("tango:5"), Ok(Geometry::Tango { k: 5, symmetric: false }));
        assert_eq!(geometry("tango:5:symmetric"), Ok(Geometry::Tango { k: 5, symmetric: true }));
        for text in ["", "ring", "dks", "dks:x", "dks:1", "tango:4:symmetric", "tango:5:skew"] {
            assert!(geometry(text).is_err(), "{text}");
        }
    }
}
