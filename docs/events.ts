// Written by `cargo xtask gen` from the registry of event types. Not edited by hand.

/** A place in the log; opaque to clients. Form: `^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$`. */
export type Position = string;

/** A user took a place in a course. */
export interface CourseEnrolled {
  /** The learner. A UUID. */
  user_id: string;
  /** The course. 1 to 128 characters. */
  course_id: string;
  /** When the place was taken. RFC 3339. */
  enrolled_at: string;
}

/** A user finished a lesson. */
export interface LessonCompleted {
  /** The learner. A UUID. */
  user_id: string;
  /** The course that the lesson belongs to. 1 to 128 characters. */
  course_id: string;
  /** The lesson. 1 to 128 characters. */
  lesson_id: string;
  /** Time spent, in seconds. 0 to 31536000. */
  duration_seconds?: number | null;
}

/** A user handed in an assessment. */
export interface AssessmentSubmitted {
  /** The learner. A UUID. */
  user_id: string;
  /** The course that the assessment belongs to. 1 to 128 characters. */
  course_id: string;
  /** The assessment. 1 to 128 characters. */
  assessment_id: string;
  /** Which attempt this is, from 1. 1 to 1000. */
  attempt: number;
  /** Points reached, in thousandths of the possible ones; absent until it is marked. 0 to 1000. */
  score_permille?: number | null;
}

/** A certificate was issued to a user. */
export interface CertificateIssued {
  /** The holder. A UUID. */
  user_id: string;
  /** The course that was passed. 1 to 128 characters. */
  course_id: string;
  /** The certificate. 1 to 128 characters. */
  certificate_id: string;
  /** When it was issued. RFC 3339. */
  issued_at: string;
}

/** A wallet was opened for a user. */
export interface WalletCreated {
  /** The wallet. 1 to 128 characters. */
  wallet_id: string;
  /** The owner. A UUID. */
  user_id: string;
  /** Currency that the wallet holds. Form: `^[A-Z]{3,5}$`. */
  currency: string;
}

/** Money moved from one wallet to another. */
export interface TransactionCompleted {
  /** The transaction. 1 to 128 characters. */
  transaction_id: string;
  /** Wallet that was debited. 1 to 128 characters. */
  from_wallet_id: string;
  /** Wallet that was credited. 1 to 128 characters. */
  to_wallet_id: string;
  /** What moved. */
  money: {
    /** Whole minor units (cents) of the currency; at most 2^53 - 1, which every JSON reader holds exactly. 1 to 9007199254740991. */
    amount_minor: number;
    /** Currency code, such as `AZR` or `EUR`. Form: `^[A-Z]{3,5}$`. */
    currency: string;
  };
}

/** A wallet was credited for mining. */
export interface MiningReward {
  /** Wallet that was credited. 1 to 128 characters. */
  wallet_id: string;
  /** What was credited. */
  money: {
    /** Whole minor units (cents) of the currency; at most 2^53 - 1, which every JSON reader holds exactly. 1 to 9007199254740991. */
    amount_minor: number;
    /** Currency code, such as `AZR` or `EUR`. Form: `^[A-Z]{3,5}$`. */
    currency: string;
  };
  /** Block that the reward is for. 0 to 9007199254740991. */
  block_height: number;
}

/** A wallet received its universal basic income. */
export interface UbiDistributed {
  /** Wallet that was credited. 1 to 128 characters. */
  wallet_id: string;
  /** The owner. A UUID. */
  user_id: string;
  /** What was credited. */
  money: {
    /** Whole minor units (cents) of the currency; at most 2^53 - 1, which every JSON reader holds exactly. 1 to 9007199254740991. */
    amount_minor: number;
    /** Currency code, such as `AZR` or `EUR`. Form: `^[A-Z]{3,5}$`. */
    currency: string;
  };
  /** Month that it is for, as `2026-01`. Form: `^[0-9]{4}-(0[1-9]|1[0-2])$`. */
  period: string;
}

/** A job was offered. */
export interface JobPosted {
  /** The job. 1 to 128 characters. */
  job_id: string;
  /** Who offers it. A UUID. */
  employer_id: string;
  /** One line for people. 1 to 200 characters. */
  title: string;
  /** What it pays; absent when it is to be agreed. */
  budget?: {
    /** Whole minor units (cents) of the currency; at most 2^53 - 1, which every JSON reader holds exactly. 1 to 9007199254740991. */
    amount_minor: number;
    /** Currency code, such as `AZR` or `EUR`. Form: `^[A-Z]{3,5}$`. */
    currency: string;
  } | null;
}

/** A user applied for a job. */
export interface ApplicationSubmitted {
  /** The application. 1 to 128 characters. */
  application_id: string;
  /** The job. 1 to 128 characters. */
  job_id: string;
  /** Who applied. A UUID. */
  applicant_id: string;
}

/** Both sides signed a contract. */
export interface ContractSigned {
  /** The contract. 1 to 128 characters. */
  contract_id: string;
  /** The job that it is for. 1 to 128 characters. */
  job_id: string;
  /** Who pays. A UUID. */
  employer_id: string;
  /** Who works. A UUID. */
  worker_id: string;
  /** What is paid in all. */
  total: {
    /** Whole minor units (cents) of the currency; at most 2^53 - 1, which every JSON reader holds exactly. 1 to 9007199254740991. */
    amount_minor: number;
    /** Currency code, such as `AZR` or `EUR`. Form: `^[A-Z]{3,5}$`. */
    currency: string;
  };
  /** When the second side signed. RFC 3339. */
  signed_at: string;
}

/** Money that was held for a contract went to the worker. */
export interface PaymentReleased {
  /** The payment. 1 to 128 characters. */
  payment_id: string;
  /** The contract that it is for. 1 to 128 characters. */
  contract_id: string;
  /** Wallet that was credited. 1 to 128 characters. */
  to_wallet_id: string;
  /** What was released. */
  money: {
    /** Whole minor units (cents) of the currency; at most 2^53 - 1, which every JSON reader holds exactly. 1 to 9007199254740991. */
    amount_minor: number;
    /** Currency code, such as `AZR` or `EUR`. Form: `^[A-Z]{3,5}$`. */
    currency: string;
  };
}

/** A user was registered. Carries no personal field: who may see those asks for the user. */
export interface UserRegistered {
  /** The new user. A UUID. */
  user_id: string;
  /** Version of the user's record after the write. 1 to 9007199254740991. */
  version: number;
  /** When the user was registered. RFC 3339. */
  registered_at: string;
}

/** A user logged in. */
export interface UserLogin {
  /** The user. A UUID. */
  user_id: string;
  /** Version of the user's record after the write. 1 to 9007199254740991. */
  version: number;
  /** When the user logged in. RFC 3339. */
  logged_in_at: string;
}

/** Something about the platform that people should know. */
export interface SystemAlert {
  /** How much it matters. */
  severity: "info" | "warning" | "critical";
  /** Stable name of the condition, such as `disk-almost-full`. Form: `^[a-z0-9-]{1,64}$`. */
  code: string;
  /** One sentence for people. 1 to 500 characters. */
  message: string;
}

/** A component reported how it does. */
export interface HealthCheck {
  /** The component. Form: `^[a-z0-9-]{1,64}$`. */
  component: string;
  /** How it does. */
  status: "healthy" | "degraded" | "unhealthy";
  /** How long the check took, in milliseconds. 0 to 3600000. */
  latency_milliseconds?: number | null;
}

/** The data of each event type. */
export interface EventData {
  "course.enrolled": CourseEnrolled;
  "lesson.completed": LessonCompleted;
  "assessment.submitted": AssessmentSubmitted;
  "certificate.issued": CertificateIssued;
  "wallet.created": WalletCreated;
  "transaction.completed": TransactionCompleted;
  "mining.reward": MiningReward;
  "ubi.distributed": UbiDistributed;
  "job.posted": JobPosted;
  "application.submitted": ApplicationSubmitted;
  "contract.signed": ContractSigned;
  "payment.released": PaymentReleased;
  "user.registered": UserRegistered;
  "user.login": UserLogin;
  "system.alert": SystemAlert;
  "health.check": HealthCheck;
}

/** A type of event. */
export type EventType = keyof EventData;

/** A CloudEvent as Nexus sends it; the union of all types tells them apart by `type`. */
export type AzoraEvent<Type extends EventType = EventType> = {
  [One in Type]: {
    specversion: "1.0";
    /** Unique per source. */
    id: string;
    /** Who produced it, a URI reference. */
    source: string;
    type: One;
    /** What it is about, in the form that its type asks for. */
    subject: string;
    /** When it happened, RFC 3339. */
    time: string;
    datacontenttype: "application/json";
    /** Names the version of the type that the data is in; the first one when absent. */
    dataschema?: string;
    data: EventData[One];
    /** Its place in the log: hand the last one back to get what came after it. */
    position: Position;
  };
}[Type];

/** A CloudEvent as it is published. */
export type NewEvent<Type extends EventType = EventType> = {
  [One in Type]: {
    specversion: "1.0";
    /** Unique per source: with the same source and id it is published once. */
    id: string;
    /** Who produced it, a URI reference. */
    source: string;
    type: One;
    /** What it is about, in the form that its type asks for. */
    subject: string;
    /** When it happened, RFC 3339; now by default. */
    time?: string;
    datacontenttype?: "application/json";
    /** Names the version of the type that the data is in; the first one when absent. */
    dataschema?: string;
    data: EventData[One];
  };
}[Type];

/** What a client sends on `/v1/stream`; the answer repeats the `id`. */
export type Command =
  /** Authenticates; without a token, describes the session, which the upgrade authenticated. */
  | {
    /** The client's own number for it; the answer carries it. */
    id: number;
    command: "connect";
    /** A JWT, without `Bearer`. */
    token?: string | null;
  }
  /** Replaces the token of the same person by a fresh one. */
  | {
    /** The client's own number for it; the answer carries it. */
    id: number;
    command: "refresh";
    /** A JWT, without `Bearer`. */
    token: string;
  }
  /** Receives events, from `after` on or from now on. */
  | {
    /** The client's own number for it; the answer carries it. */
    id: number;
    command: "subscribe";
    /** Patterns of event types: `*` is one segment, `**` any number of them. */
    types: Array<string>;
    /** Exact subjects; all of them when absent. */
    subjects?: Array<string> | null;
    /** Attributes of `CloudEvents` and the text that each must have; any when absent. */
    attributes?: Record<string, string>;
    /** Only what is told in this room, in which the client is from then on; any when absent. */
    room?: string | null;
    /** The position of the last event the client has; from now on when absent. */
    after?: Position | null;
    /** The version of a type in which its events are to come; the current one when absent. */
    versions?: Record<string, number>;
  }
  /** Stops receiving the events of one subscription. */
  | {
    /** The client's own number for it; the answer carries it. */
    id: number;
    command: "unsubscribe";
    /** The name that `subscribe` answered with. */
    subscription: string;
  }
  /** Is in a room, and receives what is told there. */
  | {
    /** The client's own number for it; the answer carries it. */
    id: number;
    command: "join";
    /** The room, such as `course/c1`. */
    room: string;
    /** The position of the last event the client has; from now on when absent. */
    after?: Position | null;
  }
  /** Is in a room no longer. */
  | {
    /** The client's own number for it; the answer carries it. */
    id: number;
    command: "leave";
    /** The room, such as `course/c1`. */
    room: string;
  }
  /** Tells who is in a room. */
  | {
    /** The client's own number for it; the answer carries it. */
    id: number;
    command: "presence";
    /** The room, such as `course/c1`. */
    room: string;
  }
  /** Publishes one event, as `POST /v1/events` does. */
  | {
    /** The client's own number for it; the answer carries it. */
    id: number;
    command: "publish";
    /** A `CloudEvent` in structured JSON. */
    event: NewEvent;
  }
  /** Reads past events once, as `GET /v1/events` does. */
  | {
    /** The client's own number for it; the answer carries it. */
    id: number;
    command: "history";
    /** Patterns of event types; all types when absent. */
    types?: Array<string> | null;
    /** Exact subjects; all of them when absent. */
    subjects?: Array<string> | null;
    /** Only events after this position; from the oldest kept on when absent. */
    after?: Position | null;
    /** How many events at most. At least 0. */
    limit?: number | null;
    /** The version of a type in which its events are to come; the current one when absent. */
    versions?: Record<string, number>;
  }
  /** Asks for a sign of life. */
  | {
    /** The client's own number for it; the answer carries it. */
    id: number;
    command: "ping";
  };

/** What Nexus sends on `/v1/stream` without being asked. */
export type Push =
  /** An event that a subscription wants. */
  | {
    push: "event";
    /** The name that `subscribe` answered with. */
    subscription: string;
    event: AzoraEvent;
  }
  /** The events after `from` up to `to` are gone for this subscription; it goes on after `to`. */
  | {
    push: "gap";
    subscription: string;
    from: Position;
    to: Position;
  }
  /** Everything that matched up to `position` has been sent. */
  | {
    push: "heartbeat";
    position: Position;
  }
  /** This pod stops: come back after the delay, in milliseconds, with this position. */
  | {
    push: "drain";
    /** At least 0. */
    reconnect_after_ms: number;
    position: Position;
  };

/** The answer to the command of this `id`, which is null when the frame had none that could be read. */
export type Answer =
  | { id: number; result: unknown }
  | { id: number | null; error: { code: string; message: string } };

/** What Nexus sends on `/v1/stream`. */
export type Frame = Answer | Push;
