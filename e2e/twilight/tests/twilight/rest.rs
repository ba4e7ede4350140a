// SPDX-License-Identifier: AGPL-3.0-only
//! twilight-http, as its users get it, before the simulated Discord's REST API and before `api`: what it gets there it
//! gets here. Its own limiter is switched off, as the guide says.

use std::time::Duration;

use holdfast_service::{Secret, Service};
use holdfast_simulator::{Options, Simulator};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use twilight_http::Client;
use twilight_http::api_error::ApiError;
use twilight_http::error::ErrorType;
use twilight_http::request::channel::reaction::RequestReactionType;
use twilight_http::response::StatusCode;
use twilight_model::http::attachment::Attachment;
use twilight_model::id::Id;

use crate::stage::{BOTH, TOKEN, Target};

/// Longer than anything takes on a machine that is busy building.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_bots_ask_for_most_is_answered_as_by_discord() {
    for target in BOTH {
        let discord = Simulator::start(Options::default()).await.expect("the simulator starts");
        let (place, api) = before(&discord, target).await;
        let client = Client::builder().proxy(place, true).ratelimiter(None).token(TOKEN.to_owned());
        let client = client.timeout(PATIENCE).build();
        let guild = Id::new(holdfast_simulator::guild_id(0));
        let channels = client.guild_channels(guild).await.expect("answered").bytes().await.expect("a body");
        let channels: serde_json::Value = serde_json::from_slice(&channels).expect("JSON");
        let texts = channels.as_array().expect("a list").iter().find(|channel| channel["type"] == 0);
        let channel = texts.and_then(|channel| channel["id"].as_str()?.parse().ok()).expect("a text channel");
        let (channel, me) = (Id::new(channel), Id::new(holdfast_simulator::BOT_USER));

        let sent = client.create_message(channel).content("from twilight").await.expect("answered");
        assert_eq!(sent.status(), StatusCode::OK, "{target:?}");
        let files = [Attachment::from_bytes("x.bin".to_owned(), vec![b'x'; 200_000], 1)];
        let sent = client.create_message(channel).content("with a file").attachments(&files).await;
        assert_eq!(sent.expect("answered").status(), StatusCode::OK, "{target:?}");
        let fire = RequestReactionType::Unicode { name: "🔥" };
        assert!(
            client.create_reaction(channel, Id::new(5), &fire).await.expect("answered").status().is_success()
        );
        assert_eq!(client.guild_member(guild, me).await.expect("answered").status(), StatusCode::OK);
        assert!(client.channel_messages(channel).limit(5).await.is_ok());
        let missing = client.channel(Id::new(1)).await.expect_err("there is no such channel");
        let ErrorType::Response { error: ApiError::General(error), status, .. } = missing.kind() else {
            unreachable!("{missing:?}")
        };
        assert_eq!((error.code, *status), (10_003, StatusCode::NOT_FOUND), "{target:?}");

        let seen = discord.requests();
        assert!(
            seen.iter().any(|request| request.path.ends_with("/messages?limit=5")),
            "{target:?}: {seen:?}"
        );
        assert!(seen.iter().all(|request| request.status != 429), "{target:?}");
        if let Some(api) = api {
            api.tasks.finish(PATIENCE).await.expect("everything ends");
        }
    }
}

/// Where the client is to ask, and the service that is there.
async fn before(discord: &Simulator, target: Target) -> (String, Option<Service>) {
    let host = |url: &str| url.split('/').nth(2).expect("a host").to_owned();
    if target == Target::Direct {
        return (host(discord.api_url()), None);
    }
    let config = holdfast_api::Config {
        api_url: discord.api_url().to_owned(),
        token: Some(Secret::new(TOKEN)),
        ..holdfast_api::Config::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let service = Service::new(CancellationToken::new());
    let api =
        holdfast_api::start(config, listener, &service, CancellationToken::new()).await.expect("it starts");
    service.tasks.spawn("api", async move { api.wait().await.expect("nothing refuses") });
    (address, Some(service))
}
