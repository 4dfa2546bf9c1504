//! Events of the marketplace: jobs, applications, contracts, payments.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::finance::Money;
use super::registry::{Domain, Payload};

/// A job was offered.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobPosted {
    /// The job.
    #[schemars(length(min = 1, max = 128))]
    pub job_id: String,
    /// Who offers it.
    pub employer_id: Uuid,
    /// One line for people.
    #[schemars(length(min = 1, max = 200))]
    pub title: String,
    /// What it pays; absent when it is to be agreed.
    pub budget: Option<Money>,
}

impl Payload for JobPosted {
    const TYPE: &'static str = "job.posted";
    const DOMAIN: Domain = Domain::Marketplace;
    const SUBJECT: &'static str = "job";
    const AUDIENCE: &'static [&'static str] = &["everyone", "user/{employer_id}", "job/{job_id}"];
    const LETS_IN: bool = true;
    const DESCRIPTION: &'static str = "A job was offered.";
}

/// A user applied for a job.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplicationSubmitted {
    /// The application.
    #[schemars(length(min = 1, max = 128))]
    pub application_id: String,
    /// The job.
    #[schemars(length(min = 1, max = 128))]
    pub job_id: String,
    /// Who applied.
    pub applicant_id: Uuid,
}

impl Payload for ApplicationSubmitted {
    const TYPE: &'static str = "application.submitted";
    const DOMAIN: Domain = Domain::Marketplace;
    const SUBJECT: &'static str = "job";
    const AUDIENCE: &'static [&'static str] = &["user/{applicant_id}", "job/{job_id}"];
    const DESCRIPTION: &'static str = "A user applied for a job.";
}

/// Both sides signed a contract.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContractSigned {
    /// The contract.
    #[schemars(length(min = 1, max = 128))]
    pub contract_id: String,
    /// The job that it is for.
    #[schemars(length(min = 1, max = 128))]
    pub job_id: String,
    /// Who pays.
    pub employer_id: Uuid,
    /// Who works.
    pub worker_id: Uuid,
    /// What is paid in all.
    pub total: Money,
    /// When the second side signed.
    pub signed_at: Timestamp,
}

impl Payload for ContractSigned {
    const TYPE: &'static str = "contract.signed";
    const DOMAIN: Domain = Domain::Marketplace;
    const SUBJECT: &'static str = "contract";
    const AUDIENCE: &'static [&'static str] = &["user/{employer_id}", "user/{worker_id}", "contract/{contract_id}"];
    const LETS_IN: bool = true;
    const DESCRIPTION: &'static str = "Both sides signed a contract.";
}

/// Money that was held for a contract went to the worker.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentReleased {
    /// The payment.
    #[schemars(length(min = 1, max = 128))]
    pub payment_id: String,
    /// The contract that it is for.
    #[schemars(length(min = 1, max = 128))]
    pub contract_id: String,
    /// Wallet that was credited.
    #[schemars(length(min = 1, max = 128))]
    pub to_wallet_id: String,
    /// What was released.
    pub money: Money,
}

impl Payload for PaymentReleased {
    const TYPE: &'static str = "payment.released";
    const DOMAIN: Domain = Domain::Marketplace;
    const SUBJECT: &'static str = "contract";
    const AUDIENCE: &'static [&'static str] = &["contract/{contract_id}", "wallet/{to_wallet_id}"];
    const DESCRIPTION: &'static str = "Money that was held for a contract went to the worker.";
}
