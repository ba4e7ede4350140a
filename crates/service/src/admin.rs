// SPDX-License-Identifier: AGPL-3.0-only
//! The admin listener: health, readiness, metrics and what a service adds. It listens on loopback unless told
//! otherwise; its task belongs to the given owner.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, header};
use futures_util::StreamExt as _;
use tokio::net::TcpListener;

use crate::{Feed, Page, Pages, Posted, Secret, Tasks};

/// Serves `pages`, and `routes` before them, until the owner's token ends it.
pub fn serve(listener: TcpListener, pages: Pages, routes: Router, tasks: &Tasks) {
    let router = routes.fallback(move |request: Request<Body>| {
        let pages = pages.clone();
        async move {
            if request.method() == Method::POST
                && let Some(page) = pages.post(request.uri().path(), posted(&request)).await
            {
                return response(page);
            }
            if request.method() == Method::GET
                && let Some(feed) = pages.feed(request.uri().path())
            {
                return events(&feed);
            }
            // A page may take its time: other tasks of this thread don't wait for it.
            let answer =
                tokio::task::spawn_blocking(move || answer(&pages, request.method(), request.uri().path()));
            answer.await.unwrap_or_else(|_| failed())
        }
    });
    let token = tasks.token().clone();
    tasks.spawn("admin", async move {
        let serving = axum::serve(listener, router).with_graceful_shutdown(token.clone().cancelled_owned());
        tokio::select! {
            biased;
            // Idle connections of a scraper must not hold the process up.
            () = token.cancelled() => {}
            outcome = serving => if let Err(error) = outcome {
                tracing::error!(%error, "the admin listener ended");
            },
        }
    });
}

fn answer(pages: &Pages, method: &Method, path: &str) -> Response<Body> {
    let page = match *method {
        Method::GET | Method::HEAD => pages.get(path),
        _ => Some(Page::status(405, "only GET\n")),
    };
    response(page.unwrap_or_else(|| Page::status(404, "no such page\n")))
}

fn events(feed: &Feed) -> Response<Body> {
    let Some(events) = feed.watch() else {
        return response(Page::status(503, "too many watch already\n"));
    };
    let mut response = Response::new(Body::from_stream(events.map(Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn posted(request: &Request<Body>) -> Posted {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok()).unwrap_or_default();
    Posted {
        authorization: Secret::new(authorization),
        query: request.uri().query().unwrap_or_default().to_owned(),
    }
}

fn response(page: Page) -> Response<Body> {
    let mut response = Response::new(Body::from(page.body));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(page.content_type));
    response
}

/// The page panicked.
fn failed() -> Response<Body> {
    let mut response = Response::new(Body::from("the page failed\n"));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::Service;

    #[tokio::test]
    async fn health_readiness_and_metrics_are_served() {
        let admin = Admin::start().await;
        let condition = admin.service.readiness.condition("shards", "none connected");
        assert!(admin.get("/healthz").await.starts_with("HTTP/1.1 200"));
        let waiting = admin.get("/readyz").await;
        assert!(
            waiting.starts_with("HTTP/1.1 503") && waiting.contains("shards: none connected"),
            "{waiting}"
        );
        condition.ready();
        assert!(admin.get("/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(admin.get("/metrics").await.contains("process_resident_memory_bytes"));
        assert!(admin.get("/nothing").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_service_adds_its_pages_and_its_routes() {
        let admin = Admin::start().await;
        admin.service.pages.add("/shards", || Page::json("[]"));
        assert!(admin.get("/shards").await.contains("application/json"));
        assert!(admin.get("/route").await.ends_with("routed"));
    }

    #[tokio::test]
    async fn pages_below_a_path_get_the_rest_of_it() {
        let admin = Admin::start().await;
        admin.service.pages.add_below("/guilds/", |id| match id {
            "broken" => panic!("on purpose"),
            id => Page::text(format!("guild {id}")),
        });
        assert!(admin.get("/guilds/17").await.ends_with("guild 17"));
        assert!(admin.get("/guilds/").await.starts_with("HTTP/1.1 404"));
        assert!(admin.get("/guilds").await.starts_with("HTTP/1.1 404"));
        assert!(admin.get("/guilds/broken").await.starts_with("HTTP/1.1 500"));
        assert!(admin.get("/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_service_adds_what_post_does() {
        let admin = Admin::start().await;
        admin.service.pages.on_post("/act", async |posted: Posted| {
            assert_eq!(posted.authorization.expose(), "Bot t");
            Page::status(202, format!("acting on {}", posted.parameter("b").unwrap_or_default()))
        });
        let answer = admin.ask("POST /act?a=1&b=2 HTTP/1.1\r\nauthorization: Bot t").await;
        assert!(answer.starts_with("HTTP/1.1 202") && answer.ends_with("acting on 2"), "{answer}");
        assert!(admin.ask("POST /healthz HTTP/1.1").await.starts_with("HTTP/1.1 405"));
        assert!(admin.get("/act").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn events_go_to_who_watches_and_a_place_is_free_when_it_has_gone() {
        let admin = Admin::start().await;
        let feed = Feed::new(1, crate::FeedMetrics::default());
        admin.service.pages.add_feed("/events", &feed);
        assert!(admin.ask("POST /events HTTP/1.1").await.starts_with("HTTP/1.1 405"));
        let mut stream = tokio::net::TcpStream::connect(admin.address).await.expect("connects");
        stream.write_all(b"GET /events HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("sends");
        let mut told = String::new();
        while !told.contains("data: {}\n\n") {
            if feed.is_watched() {
                feed.tell("{}");
            }
            let mut bytes = [0; 1024];
            let read = stream.read(&mut bytes).await.expect("is told");
            told += std::str::from_utf8(&bytes[..read]).expect("text");
        }
        assert!(told.contains("content-type: text/event-stream"), "{told}");
        assert!(admin.get("/events").await.starts_with("HTTP/1.1 503"));
        drop(stream);
        // The end of a connection is seen by its next write, at the latest.
        while feed.is_watched() {
            feed.tell("{}");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_open_connection_does_not_hold_up_the_end() {
        let admin = Admin::start().await;
        let idle = tokio::net::TcpStream::connect(admin.address).await.expect("connects");
        admin.service.tasks.finish(std::time::Duration::from_secs(5)).await.expect("ends");
        drop(idle);
    }

    struct Admin {
        service: Service,
        address: std::net::SocketAddr,
    }

    impl Admin {
        async fn start() -> Self {
            let service = Service::new(CancellationToken::new());
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("bound");
            let routes = Router::new().route("/route", axum::routing::get(async || "routed"));
            serve(listener, service.pages.clone(), routes, &service.tasks);
            Self { service, address }
        }

        async fn get(&self, path: &str) -> String {
            self.ask(&format!("GET {path} HTTP/1.1")).await
        }

        async fn ask(&self, head: &str) -> String {
            let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("connects");
            let request = format!("{head}\r\nhost: test\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sends");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("answers");
            answer
        }
    }
}
