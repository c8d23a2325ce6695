//! The command line for clap: every command with its arguments and help. The doc comments of arguments, commands and
//! values are the text of `--help`. Other modules of `cli` run the commands.

mod books;
mod certificates;
mod downloads;
mod keys;
mod manual;
mod object;
mod proxy;
mod torrent;

pub use certificates::{CertificatesCommand, RenewArgs};
pub use keys::{KeysCommand, KeysRotateArgs, PolicyArgs, ProviderKeysCommand};
pub use keys::{ProviderKeysRemoveArgs, ProviderKeysRotateArgs};

pub use books::*;
use clap::{Args, Parser, Subcommand, ValueEnum};
pub use downloads::{CacheRemoveArgs, HandleArgs, WhyArgs};
pub use manual::{CompletionsArgs, ManArgs};
pub use object::ObjectArgs;
pub use proxy::ProxyArgs;
use std::path::PathBuf;
use swarmedge_client::client::TcpPort;
use swarmedge_edge::policy::AccessText;
use swarmedge_ground::terminal::units::{Rate, Size};
pub use torrent::{TorrentCommand, TorrentExportArgs};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "swarmedge",
    about = "Peer-assisted content distribution: an HTTPS edge that always delivers, peers that do most of the work, and \
             a ledger that accounts for every byte.",
    disable_version_flag = true,
    arg_required_else_help = true,
    after_help = "Start here:\n  \
        swarmedge demo                    watch a whole network deliver a file on this machine\n  \
        swarmedge init my-cdn             make a deployment of your own and be told the next commands\n\n\
        Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not found, 4 unreachable, 5 forbidden, 6 disk, \
        7 unproven and 8 disagreeing books (see `audit --help`), 130 interrupted (paused, nothing lost)."
)]
pub struct Cli {
    /// Options common to all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command to run; `None` with `--version`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options common to all commands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Print name, version and runtime
    #[arg(short = 'V', long)]
    pub version: bool,
    /// Answer in JSON: one object on standard output, errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// What to log to standard error, as in `info` or `swarmedge_edge=debug`
    #[arg(long, global = true, value_name = "FILTER", env = "SWARMEDGE_LOG", help_heading = "Logging")]
    pub log: Option<String>,
    /// End when standard input is closed: a started process does not outlive the one that started it
    #[arg(long, global = true, hide = true)]
    pub exit_with_parent: bool,
}

/// The commands of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole network on this machine and watch it deliver a file
    Demo(DemoArgs),
    /// Make a ready-to-run deployment: keys, certificates, configuration, install bundle
    Init(InitArgs),
    /// When the servers' certificates expire, and new ones
    #[command(subcommand)]
    Certificates(CertificatesCommand),
    /// Publish a file, or a new version of one
    Publish(PublishArgs),
    /// List what is published
    Objects(ConfigArgs),
    /// Set the policy for all objects of a provider
    Policy(PolicyArgs),
    /// Withdraw a published object
    Unpublish(UnpublishArgs),
    /// The keys that providers sign access tokens with
    #[command(subcommand)]
    ProviderKeys(ProviderKeysCommand),
    /// The keys that edges seal grants with
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Run an edge server: HTTPS content, manifests, grants
    Edge(ServerArgs),
    /// Run a connection node: the clients' control connections
    Cn(ServerArgs),
    /// Run a database node: who holds what, and who should meet whom
    Dn(ServerArgs),
    /// Run a STUN server: tells clients how the network sees them
    Stun(ServerArgs),
    /// Run the ledger, or show what it recorded
    Ledger(LedgerArgs),
    /// What a provider got and pays for: text, JSON, CSV or HTML with plots
    Report(ReportArgs),
    /// Who may cheat: cliques, repeated demand, introductions nobody made, cloned installations
    Detect(DetectArgs),
    /// Put clients into quarantine, where edges alone serve them and their peer bytes are unbilled, or release them
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Check an invoice against exported days, with public keys alone
    Audit(AuditArgs),
    /// Let a server start without a ledger or spool that is lost for good
    AcceptLoss(AcceptLossArgs),
    /// Run several roles in one process
    Serve(ServeArgs),
    /// The background client of this machine
    #[command(subcommand)]
    Client(ClientCommand),
    /// Download an object
    Get(GetArgs),
    /// Show the downloads of the background client
    Status(ClientArgs),
    /// Find out what NATs and firewalls are on the way, and which peers can be reached
    Nat(NatArgs),
    /// Tell why a download had no peers, and why each introduced peer was or was not connected
    Why(WhyArgs),
    /// Stop a download and keep its pieces
    Pause(HandleArgs),
    /// Continue a paused or failed download
    Resume(HandleArgs),
    /// End a download and delete its pieces
    Cancel(HandleArgs),
    /// Allow or forbid uploads to other clients, at once
    Uploads(UploadsArgs),
    /// List or remove the versions that this machine keeps for sharing
    #[command(subcommand)]
    Cache(CacheCommand),
    /// BitTorrent v2 files for published versions
    #[command(subcommand)]
    Torrent(TorrentCommand),
    /// Measure against curl, aria2 and nginx on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a script that completes these commands in a shell
    Completions(CompletionsArgs),
    /// Write the manual: a page for each command
    Man(ManArgs),
}

/// Arguments of `swarmedge nat`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Asks the running client what it has observed. Without one, or with --stun, it observes by itself for \
    up to three seconds, with the bundle's STUN servers or the named ones: any server of RFC 5780 will do. Behind a \
    NAT it then asks the router for a port, to see whether it would forward one, and gives it back.\n\n\
    Mapping and filtering are named as in RFC 4787. What was not seen is not claimed: it is \"unknown\".\n\n\
    Exit codes: 0 something was found (also that UDP is blocked), 2 wrong usage, 4 no STUN server answers.\n\n\
    Examples:\n  \
    swarmedge nat\n  \
    swarmedge nat --stun stun.example.org:3478 --json"
)]
pub struct NatArgs {
    /// Ask this STUN server (several: the first that answers, the others for comparison)
    #[arg(long, value_name = "HOST:PORT")]
    pub stun: Vec<String>,
    /// Ask the STUN servers of this install bundle's deployment
    #[arg(long, value_name = "FILE", conflicts_with = "stun")]
    pub bundle: Option<PathBuf>,
    /// Do not ask the router to forward a port while it looks
    #[arg(long, env = "SWARMEDGE_NO_PORT_MAPPING")]
    pub no_port_mapping: bool,
    /// State directory of the client.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Arguments of `swarmedge demo`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Starts an edge with the ledger, a connection node, a database node, a STUN server and clients, each a \
    process of its own on loopback, and ends with exit code 0 only if every file is right and the ledger agrees with \
    what was delivered, to the byte.\n\n\
    Examples:\n  \
    swarmedge demo\n  \
    swarmedge demo --file some-large.iso --downloads 4\n  \
    swarmedge demo --peers 4 --edge-limit 20MB/s\n  \
    swarmedge demo --chaos"
)]
pub struct DemoArgs {
    /// Deliver this file (else one of --size is generated)
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Bytes of the generated file
    #[arg(long, default_value = "256MB", conflicts_with = "file")]
    pub size: Size,
    /// Clients that hold the file before the downloads begin
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=64), value_name = "N")]
    pub peers: u32,
    /// Clients that download at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    pub downloads: u32,
    /// The most the edge sends to one download, as in 20MB/s
    #[arg(long, value_name = "RATE")]
    pub edge_limit: Option<Rate>,
    /// Half way, kill the connection node, the database node and one seeder
    #[arg(long)]
    pub chaos: bool,
    /// Run half of the clients on the other runtime's binary
    #[arg(long)]
    pub mixed: bool,
    /// Keep the directory with all keys, logs and databases after the demo
    #[arg(long)]
    pub keep: bool,
    /// Make the directory here instead of in the system's place for temporary files
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Give up when the downloads take longer than this many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub timeout: u64,
}

/// Arguments of `swarmedge init`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  swarmedge init my-cdn --host cdn.example.com --base-port 8443\n\n\
    DIR/root.key signs for everything: keep it off line once the servers have their certificates.")]
pub struct InitArgs {
    /// The directory to make
    pub dir: PathBuf,
    /// The name or address that clients reach the servers by
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Use ports from this one upwards (else free ones)
    #[arg(long, value_name = "PORT")]
    pub base_port: Option<u16>,
    /// The provider (CP code) that ships the install bundle
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub provider: u32,
    /// Whether newly installed clients upload to others
    #[arg(long, default_value = "on", value_name = "on|off")]
    pub uploads: Switch,
    /// Write into a directory that is not empty
    #[arg(long)]
    pub force: bool,
}

/// Switch of an option: on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Configuration file of the deployment.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The servers' configuration, as made by `init`
    #[arg(long, value_name = "FILE", env = "SWARMEDGE_CONFIG", default_value = "server.toml")]
    pub config: PathBuf,
}

/// Arguments of `swarmedge publish`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Publishing a changed file under the same path makes a new version; running downloads of the old one \
    end with the old bytes or fail, they never mix.\n\n\
    A policy file has any of these keys; those that it leaves out are the provider's (see `policy`), else as here:\n  \
    peer_download = true    clients may download it from peers\n  \
    peer_upload = true      clients that hold it may upload it\n  \
    uploads_max = 0         how often one client may upload all of it; 0: no cap\n  \
    upload_rate_max = 0     bytes a second that one client may upload of it; 0: no cap\n  \
    rate_min = 0            the least bytes a second: the edge fills what peers leave; 0: as fast as the edge alone\n  \
    edge_rate_max = 0       bytes a second that the edge sends to one download; 0: no cap\n  \
    expires_ms = 0          not delivered after this time, Unix milliseconds; 0: never expires\n\
    A rate may also be written like \"20MB/s\".\n\
    Without --policy an object keeps its keys; a new one has none. Clients obey a new policy within a minute.\n\n\
    With --access token only those who show the provider's token (EdgeAuth 2.0 format, see `provider-keys`) may download\n\
    it. Without --access an object stays as it is; a new one is public.\n\n\
    Examples:\n  \
    swarmedge publish game.iso 1/games/game.iso --config my-cdn/server.toml\n  \
    swarmedge publish beta.iso --provider 1 --path games/beta.iso --access token --config my-cdn/server.toml"
)]
pub struct PublishArgs {
    /// The file
    pub file: PathBuf,
    /// The object that it becomes.
    #[command(flatten)]
    pub object: ObjectArgs,
    /// Access to the object: for everybody, or with a token
    #[arg(long, value_name = "public|token")]
    pub access: Option<AccessText>,
    /// The policy for clients: a TOML file, see below [default: as it is]
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge unpublish`.
#[derive(Clone, Debug, Args)]
pub struct UnpublishArgs {
    /// The object to withdraw.
    #[command(flatten)]
    pub object: ObjectArgs,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of the commands that run one server: `edge`, `cn`, `dn`, `stun`, `ledger`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Ends cleanly on SIGTERM and Ctrl-C; on SIGHUP it reads configuration and certificates again. /metrics, \
    /healthz and /livez are served on the configured `ops` address, and /healthz and /livez of the edge on its port for \
    content too, without details."
)]
pub struct ServerArgs {
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge serve`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Each role has a thread of its own. Who is told to end, or sees one of them fail, ends all, the ledger last.\n\
    SIGHUP reads configuration and certificates again: TLS certificates and, of [edge], rate_limit, region, cns, edges,\n\
    stun, client_version_min and client_versions_blocked are taken; the log names what needs a restart.\n\n\
    Example:\n  swarmedge serve --roles edge,ledger,cn,dn,stun --config my-cdn/server.toml"
)]
pub struct ServeArgs {
    /// The roles to run, comma-separated
    #[arg(long, value_enum, value_delimiter = ',', default_value = "edge,ledger,cn,dn,stun")]
    pub roles: Vec<Role>,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Role of a server process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// HTTPS content, manifests, grants.
    Edge,
    /// Connection node.
    Cn,
    /// Database node.
    Dn,
    /// STUN server.
    Stun,
    /// The ledger of all records.
    Ledger,
}

/// State directory of the client.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    /// The client's directory [default: ~/.local/state/swarmedge]
    #[arg(long, value_name = "DIR", env = "SWARMEDGE_STATE")]
    pub state: Option<PathBuf>,
}

/// Subcommands of `swarmedge client`.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientCommand {
    /// Run the background client in the foreground of this terminal
    Run(ClientRunArgs),
}

/// Arguments of `swarmedge client run`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  swarmedge client run --bundle my-cdn/install/bundle.toml --state client-1")]
pub struct ClientRunArgs {
    /// The install bundle; kept in the client's directory after the first start
    #[arg(long, value_name = "FILE", env = "SWARMEDGE_BUNDLE")]
    pub bundle: Option<PathBuf>,
    /// Copy finished files; by default they share their bytes on the disk with the cache, which notices if one is
    /// changed and stops sharing it
    #[arg(long)]
    pub copy: bool,
    /// Try many ports where nothing else connects two peers, if the other does so too (a symmetric NAT and one that
    /// filters by port): up to 256 sockets or 1,024 probes an attempt, which can fill the table of a small router
    #[arg(long, env = "SWARMEDGE_BIRTHDAY")]
    pub birthday: bool,
    /// Listen on this TCP port for peers that cannot use UDP: a number, udp for that of the UDP port (the default), or
    /// off. Give 443 as well where this host is to be reached from networks that let out nothing else.
    #[arg(long, value_name = "PORT|udp|off")]
    pub tcp_port: Vec<TcpPort>,
    /// Do not ask this network's router to forward a port (by PCP, NAT-PMP or UPnP)
    #[arg(long, env = "SWARMEDGE_NO_PORT_MAPPING")]
    pub no_port_mapping: bool,
    /// The proxy on the way to edges and control plane.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// State directory of the client.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Arguments of `swarmedge get`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Downloads through the background client of --state, or by itself where none runs. Ctrl-C pauses; the same\n\
    command resumes without fetching a verified piece again. With `-o -` the object is first downloaded and verified, in\n\
    the client's directory, and then written to standard output; every word goes to standard error, so --json has no\n\
    place there. A file named `-` is `-o ./-`.\n\n\
    While no edge answers, a download that has begun waits and goes on by itself, for as long as it is let; peers go on\n\
    delivering. Without a background client, one that has not begun ends after 20 s with exit code 4; with one it waits.\n\
    A full disk ends `get` at once with exit code 6; a background client then goes on as soon as there is room.\n\n\
    Examples:\n  \
    swarmedge get https://127.0.0.1:8443/1/games/game.iso -o game.iso --bundle my-cdn/install/bundle.toml\n  \
    swarmedge get 1/backups/home.tar -o - | tar x"
)]
pub struct GetArgs {
    /// The object: its URL (with the provider's token, where it needs one), or PROVIDER/PATH, unescaped
    pub url: String,
    /// The provider's token, where it is not in the URL
    #[arg(long, env = "SWARMEDGE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The file to write, or - for standard output [default: the last part of the path, here]
    #[arg(short, long, value_name = "FILE|DIR")]
    pub output: Option<PathBuf>,
    /// Replace a file that is there, or what a symbolic link points to; never a device, FIFO or socket
    #[arg(long)]
    pub force: bool,
    /// The install bundle, where no client has run before
    #[arg(long, value_name = "FILE", env = "SWARMEDGE_BUNDLE")]
    pub bundle: Option<PathBuf>,
    /// The proxy on the way to edges and control plane.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// State directory of the client.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Arguments of `swarmedge uploads`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Where no client runs, the choice is stored for its next start, also before its first one.")]
pub struct UploadsArgs {
    /// Whether others may download from this machine
    pub switch: Switch,
    /// State directory of the client.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Subcommands of `swarmedge cache`.
#[derive(Clone, Debug, Subcommand)]
pub enum CacheCommand {
    /// List the versions that this machine holds
    List(ClientArgs),
    /// Stop sharing a version and delete it
    Remove(CacheRemoveArgs),
}

/// Subcommands of `swarmedge bench`.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure edge to client and peer to client, side by side with curl, aria2c and nginx
    Transfer(BenchTransferArgs),
    /// Measure how many records a second the ledger stores, and how long a report over them takes
    Ledger(BenchLedgerArgs),
    /// Kill random processes of a small deployment, and compare the ledger with what was delivered after each
    /// download
    Crash(BenchCrashArgs),
    /// Measure what receipts cost in a transfer between peers, in bytes and CPU
    Receipts(BenchReceiptsArgs),
}

/// Arguments of `swarmedge bench transfer`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Rounds are interleaved and medians shown. Use the profile dist, on a quiet machine.\n\n\
    Example:\n  cargo run --profile dist --bin swarmedge -- bench transfer")]
pub struct BenchTransferArgs {
    /// Bytes of the file
    #[arg(long, default_value = "1GiB")]
    pub size: Size,
    /// How often each kind of transfer is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99), value_name = "N")]
    pub rounds: u32,
    /// Make the working directory here instead of in the system's place for temporary files
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_may_stand_anywhere() {
        for line in [["swarmedge", "--json", "status"], ["swarmedge", "status", "--json"]] {
            assert!(Cli::try_parse_from(line).expect("parses").global.json);
        }
    }

    #[test]
    fn the_ledger_command_runs_a_server_or_answers_queries() {
        let server = Cli::try_parse_from(["swarmedge", "ledger", "--config", "x.toml"]).expect("parses");
        assert!(matches!(server.command, Some(Command::Ledger(LedgerArgs { command: None, .. }))));
        let show = Cli::try_parse_from(["swarmedge", "ledger", "show", "--provider", "7"]).expect("parses");
        let Some(Command::Ledger(LedgerArgs { command: Some(LedgerCommand::Show(show)), .. })) = show.command else {
            panic!("not a query: {show:?}");
        };
        assert_eq!(show.provider, Some(7));
    }

    #[test]
    fn errors_name_the_bad_argument_of_the_demo() {
        for (args, named) in [
            (&["--size", "much"][..], "much"),
            (&["--downloads", "0"], "0"),
            (&["--edge-limit", "fast"], "fast"),
            (&["--file", "x", "--size", "1MiB"], "--size"),
        ] {
            let line = ["swarmedge", "demo"].iter().chain(args);
            let error = Cli::try_parse_from(line).expect_err("refused").to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn roles_come_as_one_list() {
        let cli = Cli::try_parse_from(["swarmedge", "serve", "--roles", "cn,dn"]).expect("parses");
        let Some(Command::Serve(serve)) = cli.command else { panic!("not serve") };
        assert_eq!(serve.roles, [Role::Cn, Role::Dn]);
    }
}
