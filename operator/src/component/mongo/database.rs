//! What only `MongoDB` itself can say, and what is done in it: the replica set and the application's user.

use crate::answer::{Answer, Unanswered, Working, brief, within};
use crate::credentials::{Credentials, MONGO_APPLICATION, MONGO_KEY_FILE};
use crate::layer::Layer;
use crate::names::{self, APPLICATION_USER, DATABASE, REPLICA_SET};
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{
    AuthMechanism, ClientOptions, Credential, ReadConcern, ReadPreference, SelectionCriteria, ServerAddress,
    WriteConcern,
};
use mongodb::{Client, Collection};
use std::time::Duration;

/// A change inside `MongoDB` that the plan asks for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Step {
    /// Make one replica set of the members, given as `host:port`.
    Initiate(Vec<String>),
    /// Make the application's user on the primary, given as `host:port`, or give it the password of the credentials.
    CreateUser(String),
}

/// Code of an answer to a member whose replica set was never initiated.
const NOT_YET_INITIALIZED: i32 = 94;
/// Code of a refused login.
const AUTHENTICATION_FAILED: i32 = 18;
/// Code of a user that is there already.
const USER_ALREADY_EXISTS: i32 = 51003;
/// Code of a replica set that is there already.
const ALREADY_INITIALIZED: i32 = 23;

/// Asks as the application does: a write that a majority has, and a read of what a majority has.
pub async fn observe(layer: &Layer, credentials: &Credentials) -> Answer<Step> {
    match within(state(layer, credentials)).await {
        Ok(State::Uninitiated) => Answer::Lacks(Step::Initiate(names::mongo_members(layer))),
        Ok(State::Electing) => Answer::Unreachable { cause: "the replica set has elected no primary yet".to_owned() },
        Ok(State::Primary { address }) => match within(probe(layer, credentials)).await {
            Ok(version) => Answer::Works(Working { version, primary: pod_of(&address) }),
            Err(Unanswered::Refused(error)) if is_login_refused(&error) => Answer::Lacks(Step::CreateUser(address)),
            Err(cause) => Answer::Unreachable { cause: brief(&cause) },
        },
        Err(cause) => Answer::Unreachable { cause: brief(&cause) },
    }
}

/// Carries one step out. Each may be repeated.
pub async fn carry_out(credentials: &Credentials, step: &Step) -> Result<(), Error> {
    match step {
        Step::Initiate(members) => {
            let first = members.first().map_or("", String::as_str);
            let client = system(first, credentials)?;
            let members: Vec<Document> =
                (0_i32..).zip(members).map(|(id, host)| doc! { "_id": id, "host": host }).collect();
            let command = doc! { "replSetInitiate": { "_id": REPLICA_SET, "members": members } };
            let answer = client.database("admin").run_command(command).await;
            client.shutdown().await;
            unless(answer, ALREADY_INITIALIZED)
        }
        Step::CreateUser(primary) => {
            let client = system(primary, credentials)?;
            let database = client.database(DATABASE);
            let roles = vec![doc! { "role": "readWrite", "db": DATABASE }, doc! { "role": "dbAdmin", "db": DATABASE }];
            let user = |verb: &str| {
                doc! { verb: APPLICATION_USER, "pwd": credentials.get(MONGO_APPLICATION), "roles": roles.clone() }
            };
            let mut answer = database.run_command(user("createUser")).await;
            if answer.as_ref().is_err_and(|error| code(error) == Some(USER_ALREADY_EXISTS)) {
                answer = database.run_command(user("updateUser")).await;
            }
            client.shutdown().await;
            answer.map(drop)
        }
    }
}

/// What the first member knows of its replica set.
enum State {
    Uninitiated,
    Electing,
    Primary { address: String },
}

async fn state(layer: &Layer, credentials: &Credentials) -> Result<State, Error> {
    let members = names::mongo_members(layer);
    let mut last = None;
    for member in &members {
        let client = system(member, credentials)?;
        let hello = client.database("admin").run_command(doc! { "hello": 1 }).await;
        let state = match hello {
            Ok(hello) => said(&client, &hello).await,
            Err(error) => Err(error),
        };
        client.shutdown().await;
        match state {
            Ok(state) => return Ok(state),
            // Another member may know more.
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(State::Electing), Err)
}

async fn said(client: &Client, hello: &Document) -> Result<State, Error> {
    if let Ok(address) = hello.get_str("primary") {
        return Ok(State::Primary { address: address.to_owned() });
    }
    let status = client.database("admin").run_command(doc! { "replSetGetStatus": 1 }).await;
    match status {
        Err(error) if code(&error) == Some(NOT_YET_INITIALIZED) => Ok(State::Uninitiated),
        Err(error) => Err(error),
        Ok(_) => Ok(State::Electing),
    }
}

async fn probe(layer: &Layer, credentials: &Credentials) -> Result<String, Error> {
    let hosts: Vec<ServerAddress> =
        names::mongo_members(layer).iter().map(ServerAddress::parse).collect::<Result<_, _>>()?;
    let credential = Credential::builder()
        .username(APPLICATION_USER.to_owned())
        .password(credentials.get(MONGO_APPLICATION).to_owned())
        .source(DATABASE.to_owned())
        .mechanism(AuthMechanism::ScramSha256)
        .build();
    let mut options = options(hosts, credential);
    options.repl_set_name = Some(REPLICA_SET.to_owned());
    options.write_concern = Some(WriteConcern::majority());
    options.read_concern = Some(ReadConcern::majority());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    let client = Client::with_options(options)?;
    let answer = write_and_read(&client).await;
    client.shutdown().await;
    answer
}

async fn write_and_read(client: &Client) -> Result<String, Error> {
    let database = client.database(DATABASE);
    let probes: Collection<Document> = database.collection("azora_operator_probe");
    let update = doc! { "$currentDate": { "written_at": true }, "$inc": { "writes": 1_i64 } };
    probes.update_one(doc! { "_id": "only" }, update).upsert(true).await?;
    let read = probes.find_one(doc! { "_id": "only" }).await?;
    if read.is_none() {
        return Err(Error::custom("a read did not see the write before it".to_owned()));
    }
    let about = database.run_command(doc! { "buildInfo": 1 }).await?;
    Ok(about.get_str("version").unwrap_or_default().to_owned())
}

/// A client with the members' own identity, to one member. `MongoDB` lets it in from afar where a key file is used:
/// the password is the content of the file.
fn system(member: &str, credentials: &Credentials) -> Result<Client, Error> {
    let credential = Credential::builder()
        .username("__system".to_owned())
        .password(credentials.get(MONGO_KEY_FILE).to_owned())
        .source("local".to_owned())
        .mechanism(AuthMechanism::ScramSha256)
        .build();
    let mut options = options(vec![ServerAddress::parse(member)?], credential);
    options.direct_connection = Some(true);
    Client::with_options(options)
}

fn options(hosts: Vec<ServerAddress>, credential: Credential) -> ClientOptions {
    let mut options = ClientOptions::default();
    options.hosts = hosts;
    options.credential = Some(credential);
    options.app_name = Some("azora-operator".to_owned());
    options.server_selection_timeout = Some(Duration::from_secs(4));
    options.connect_timeout = Some(Duration::from_secs(3));
    options.max_pool_size = Some(1);
    options
}

fn unless(answer: Result<Document, Error>, benign: i32) -> Result<(), Error> {
    match answer {
        Err(error) if code(&error) == Some(benign) => Ok(()),
        answer => answer.map(drop),
    }
}

fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// A refused login comes as an authentication error of the driver, with the server's answer as its source.
fn is_login_refused(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Authentication { .. }) || code(error) == Some(AUTHENTICATION_FAILED)
}

/// `demo-mongo-0.demo-mongo.azora.svc.cluster.local:27017` is the pod `demo-mongo-0`.
fn pod_of(address: &str) -> String {
    address.split(['.', ':']).next().unwrap_or_default().to_owned()
}
