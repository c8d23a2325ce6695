//! The option of commands that reach edges.

use clap::Args;

/// The proxy on the way to edges and control plane.
#[derive(Clone, Debug, Args)]
pub struct ProxyArgs {
    /// Reach edges and control plane through this HTTP proxy (http://[USER:PASSWORD@]HOST:PORT), this machine's own
    /// servers too, or through none (off). Else HTTPS_PROXY or ALL_PROXY names it; NO_PROXY lists hosts to reach
    /// directly. Peers are always met directly.
    #[arg(long, value_name = "URL|off")]
    pub proxy: Option<String>,
}
