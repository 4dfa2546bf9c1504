//! Events of finance: wallets, transactions, mining rewards, universal basic income.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::registry::{Domain, Payload};

/// An amount of money in whole minor units, so that no sum is ever rounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Whole minor units (cents) of the currency; at most 2^53 - 1, which every JSON reader holds exactly.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub amount_minor: i64,
    /// Currency code, such as `AZR` or `EUR`.
    #[schemars(regex(pattern = "^[A-Z]{3,5}$"))]
    pub currency: String,
}

/// A wallet was opened for a user.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalletCreated {
    /// The wallet.
    #[schemars(length(min = 1, max = 128))]
    pub wallet_id: String,
    /// The owner.
    pub user_id: Uuid,
    /// Currency that the wallet holds.
    #[schemars(regex(pattern = "^[A-Z]{3,5}$"))]
    pub currency: String,
}

impl Payload for WalletCreated {
    const TYPE: &'static str = "wallet.created";
    const DOMAIN: Domain = Domain::Finance;
    const SUBJECT: &'static str = "wallet";
    const AUDIENCE: &'static [&'static str] = &["user/{user_id}", "wallet/{wallet_id}"];
    const LETS_IN: bool = true;
    const DESCRIPTION: &'static str = "A wallet was opened for a user.";
}

/// Money moved from one wallet to another.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransactionCompleted {
    /// The transaction.
    #[schemars(length(min = 1, max = 128))]
    pub transaction_id: String,
    /// Wallet that was debited.
    #[schemars(length(min = 1, max = 128))]
    pub from_wallet_id: String,
    /// Wallet that was credited.
    #[schemars(length(min = 1, max = 128))]
    pub to_wallet_id: String,
    /// What moved.
    pub money: Money,
}

impl Payload for TransactionCompleted {
    const TYPE: &'static str = "transaction.completed";
    const DOMAIN: Domain = Domain::Finance;
    const SUBJECT: &'static str = "wallet";
    const AUDIENCE: &'static [&'static str] = &["wallet/{from_wallet_id}", "wallet/{to_wallet_id}"];
    const DESCRIPTION: &'static str = "Money moved from one wallet to another.";
}

/// A wallet was credited for mining.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MiningReward {
    /// Wallet that was credited.
    #[schemars(length(min = 1, max = 128))]
    pub wallet_id: String,
    /// What was credited.
    pub money: Money,
    /// Block that the reward is for.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub block_height: i64,
}

impl Payload for MiningReward {
    const TYPE: &'static str = "mining.reward";
    const DOMAIN: Domain = Domain::Finance;
    const SUBJECT: &'static str = "wallet";
    const AUDIENCE: &'static [&'static str] = &["wallet/{wallet_id}"];
    const DESCRIPTION: &'static str = "A wallet was credited for mining.";
}

/// A wallet received its universal basic income.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UbiDistributed {
    /// Wallet that was credited.
    #[schemars(length(min = 1, max = 128))]
    pub wallet_id: String,
    /// The owner.
    pub user_id: Uuid,
    /// What was credited.
    pub money: Money,
    /// Month that it is for, as `2026-01`.
    #[schemars(regex(pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$"))]
    pub period: String,
}

impl Payload for UbiDistributed {
    const TYPE: &'static str = "ubi.distributed";
    const DOMAIN: Domain = Domain::Finance;
    const SUBJECT: &'static str = "wallet";
    const AUDIENCE: &'static [&'static str] = &["user/{user_id}", "wallet/{wallet_id}"];
    const DESCRIPTION: &'static str = "A wallet received its universal basic income.";
}
