// SPDX-License-Identifier: AGPL-3.0-only
//! Where the store is. In: an address as the user wrote it. Out: its parts, or what is wrong with it, in words that
//! hold nothing of it: it may contain a password. Pure.

use holdfast_service::Secret;

/// Redis's and Valkey's own port.
const PORT: u16 = 6379;
/// Sentinel's.
const SENTINEL_PORT: u16 = 26_379;

const FORM: &str = "expected redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss://… with TLS, or \
                    redis-sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT],…/SERVICE[/DATABASE] \
                    (rediss-sentinel://… with TLS)";

/// Where the store is, and how it lets us in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Address {
    /// Whether connections, those to Sentinels too, use TLS.
    pub(crate) tls: bool,
    /// The server, or the Sentinels to ask for it.
    pub(crate) hosts: Vec<Host>,
    /// What the Sentinels call the server that takes writes; `None`: there are none.
    pub(crate) sentinel: Option<Sentinel>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: u32,
}

/// What is asked of Sentinels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sentinel {
    pub(crate) service: String,
    pub(crate) password: Option<Secret>,
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

impl Address {
    /// Takes an address apart.
    pub(crate) fn parse(text: &str) -> Result<Address, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let (tls, by_sentinel) = match scheme {
            "redis" | "valkey" => (false, false),
            "rediss" | "valkeys" => (true, false),
            "redis-sentinel" => (false, true),
            "rediss-sentinel" => (true, true),
            _ => return Err(FORM),
        };
        if rest.contains(['?', '#']) {
            return Err("nothing may follow the database: encode ? and # in a password as %3F and %23");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or(("", credentials));
        let port = if by_sentinel { SENTINEL_PORT } else { PORT };
        let hosts: Vec<Host> =
            hosts.split(',').map(|host| Host::parse(host, port)).collect::<Option<_>>().ok_or(FORM)?;
        if hosts.len() > 1 && !by_sentinel {
            return Err("several hosts are for Sentinels: redis-sentinel://HOST,HOST/SERVICE");
        }
        let (service, database) = match by_sentinel {
            true => path.split_once('/').unwrap_or((path, "")),
            false => ("", path),
        };
        if by_sentinel && service.is_empty() {
            return Err(
                "the service is missing that the Sentinels watch: redis-sentinel://HOST,HOST/SERVICE",
            );
        }
        let database = match database {
            "" => 0,
            number => number.parse().map_err(|_| "the database is a number")?,
        };
        let service = decoded(service)?;
        Ok(Address {
            tls,
            hosts,
            sentinel: by_sentinel.then_some(Sentinel { service, password: None }),
            user: Some(decoded(user)?).filter(|user| !user.is_empty()),
            password: Some(Secret::new(decoded(password)?)).filter(|password| !password.is_empty()),
            database,
        })
    }

    /// What the Sentinels themselves ask for.
    pub(crate) fn set_sentinel_password(&mut self, password: Secret) {
        if let Some(sentinel) = &mut self.sentinel {
            sentinel.password = Some(password);
        }
    }
}

impl Host {
    /// `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT`.
    fn parse(text: &str, default: u16) -> Option<Host> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest.split_once(']')?;
                (name, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
        };
        let port = port.map_or(Some(default), |port| port.parse().ok().filter(|port| *port > 0))?;
        (!name.is_empty()).then(|| Host { name: name.to_owned(), port })
    }
}

/// Takes back what a URL must encode.
fn decoded(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "a % begins two hexadecimal digits: write %25 for the sign itself";
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or(WRONG)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| WRONG)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| "it isn't UTF-8 once its % are decoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_a_host_only() {
        let address = Address::parse("redis://localhost").unwrap();
        assert_eq!(address.hosts, [host("localhost", 6379)]);
        assert_eq!((address.tls, address.database, address.user, address.password), (false, 0, None, None));
    }

    #[test]
    fn all_parts_are_read_and_decoded() {
        let address = Address::parse("rediss://me:p%40ss%2Fword@[::1]:7000/3").unwrap();
        assert_eq!(address.hosts, [host("::1", 7000)]);
        assert_eq!(address.hosts[0].to_string(), "[::1]:7000");
        assert_eq!(address.user.as_deref(), Some("me"));
        assert!(address.password.unwrap().matches("p@ss/word"));
        assert_eq!((address.tls, address.database), (true, 3));
    }

    #[test]
    fn sentinels_are_several_and_name_a_service() {
        let address = Address::parse("redis-sentinel://:hush@a,b:1234/mymaster/2").unwrap();
        assert_eq!(address.hosts, [host("a", 26_379), host("b", 1234)]);
        assert_eq!(address.sentinel.unwrap().service, "mymaster");
        assert_eq!((address.user, address.database), (None, 2));
        assert!(address.password.unwrap().matches("hush"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_text() {
        let wrong = [
            "",
            "localhost",
            "http://hush",
            "redis://",
            "redis://hush:port",
            "redis://hush:0",
            "redis://hush,hush",
            "redis://hush/hush",
            "redis://hush?x",
            "redis://:hush%@host",
            "redis://:hush%f@host",
            "redis://:hush%ff@host",
            "redis-sentinel://hush",
        ];
        for text in wrong {
            let why = Address::parse(text).unwrap_err();
            assert!(!why.contains("hush"), "{text}: {why}");
        }
    }

    fn host(name: &str, port: u16) -> Host {
        Host { name: name.to_owned(), port }
    }
}
