//! nginx, if installed, as the reference for serving a file over HTTPS.

use crate::demo::network::{make_dir, text};
use crate::init::Deployment;
use crate::process::Process;
use crate::{Error, init::Ports};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use swarmedge_ground::terminal::Interrupt;

/// A running nginx, killed when the value is dropped.
pub(super) struct Nginx {
    process: Process,
    /// Base URL of the server: `https://127.0.0.1:port`.
    pub(super) url: String,
}

impl Nginx {
    /// Starts nginx in one process to serve the folder `root` with the edge's certificate.
    pub(super) fn start(made: &Deployment, dir: &Path, root: &Path, interrupt: &Interrupt) -> Result<Self, Error> {
        make_dir(dir)?;
        let port = Ports::free()?.edge;
        let edge = made.config.parent().unwrap_or(Path::new(".")).join("edge");
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {dir}/nginx.pid; error_log stderr error;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n  access_log off; sendfile on; tcp_nopush on;\n  client_body_temp_path {dir}/body;\n  \
             proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi;\n  \
             scgi_temp_path {dir}/scgi;\n  \
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};\n    \
             ssl_protocols TLSv1.3; root {root}; }}\n}}\n",
            dir = text(dir)?,
            root = text(root)?,
            cert = text(&edge.join("tls.pem"))?,
            key = text(&edge.join("tls.key.pem"))?,
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, config).map_err(|e| Error::io(format_args!("write {}", file.display()), &e))?;
        let args = ["-c".to_owned(), text(&file)?, "-p".to_owned(), text(dir)?];
        let mut process = Process::foreign("nginx", Path::new("nginx"), dir, &args.each_ref().map(String::as_str))?;
        let ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        process.wait_ready(interrupt, Duration::from_secs(10), ready)?;
        Ok(Self { process, url: format!("https://127.0.0.1:{port}") })
    }

    /// Returns the process id of nginx.
    #[must_use]
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }
}
