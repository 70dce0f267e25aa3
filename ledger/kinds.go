package ledger

// The kinds of fact, in the order of a life. "JSON" in a comment says that Data is a JSON object; otherwise it is the signed
// envelope itself.
const (
	KindGenesis     Kind = "genesis"              // both logs: JSON {origin}; so that no tree is empty
	KindInitialised Kind = "instance.initialised" // control: JSON {instance, version}
	KindKeyCreated  Kind = "key.created"          // control: JSON {name, purpose, kid, spki}
	KindCACreated   Kind = "ca.created"           // control: certificate (DER)

	KindProductCreated Kind = "product.created" // control: JSON product
	KindAccessChanged  Kind = "access.changed"  // control: JSON grant

	KindBundlePublished  Kind = "bundle.published"  // control: COSE_Sign(Bundle)
	KindReleaseProposed  Kind = "release.proposed"  // control: payload (Release)
	KindReleaseApproved  Kind = "release.approved"  // control: COSE_Sign(Release) with the approval
	KindReleasePublished Kind = "release.published" // control: COSE_Sign(Release), threshold met
	KindReleaseWithdrawn Kind = "release.withdrawn" // control: JSON {release, reason}
	KindCommandIssued    Kind = "command.issued"    // control: COSE_Sign1(Command)
	KindCommandCancelled Kind = "command.cancelled" // control: JSON {command, reason}
	KindWarrantIssued    Kind = "warrant.issued"    // control: COSE_Sign(Warrant)

	KindRolloutCreated    Kind = "rollout.created"      // control: JSON spec
	KindRolloutStarted    Kind = "rollout.started"      // control: JSON {rollout}
	KindWaveStarted       Kind = "rollout.wave.started" // control: JSON {rollout, wave, command}
	KindWaveSucceeded     Kind = "rollout.wave.succeeded"
	KindRolloutHalted     Kind = "rollout.halted" // control: JSON {rollout, wave, reason, counts}
	KindRolloutPaused     Kind = "rollout.paused"
	KindRolloutResumed    Kind = "rollout.resumed"
	KindRolloutAborted    Kind = "rollout.aborted"
	KindRolloutRolledBack Kind = "rollout.rolledback"
	KindRolloutCompleted  Kind = "rollout.completed"

	KindOrderCreated    Kind = "order.created"    // control: COSE_Sign1(Order)
	KindOrderClosed     Kind = "order.closed"     // control: JSON, with the job-end certificate
	KindOrderReconciled Kind = "order.reconciled" // events: JSON counts

	KindDeviceProvisioned   Kind = "device.provisioned" // events: COSE_Sign1(Record)
	KindDeviceOnboarded     Kind = "device.onboarded"   // events: JSON
	KindEnrolRefused        Kind = "enrol.refused"      // events: JSON {device, product, issuer, code, text}
	KindDeviceState         Kind = "device.state.changed"
	KindDeviceUpdated       Kind = "device.updated"
	KindDeviceHealthy       Kind = "device.healthy"
	KindDeviceUnhealthy     Kind = "device.unhealthy"
	KindDeviceRefused       Kind = "device.refused" // events: JSON {command, act, code, text}
	KindDeviceQuarantined   Kind = "device.quarantined"
	KindDeviceReleased      Kind = "device.released"
	KindDeviceReprovisioned Kind = "device.reprovisioned"
	KindDeviceOverdue       Kind = "device.overdue"
	KindDeviceInconsistent  Kind = "device.inconsistent" // events: JSON {device, what, had, said}: perhaps a clone
	KindDeviceReplaced      Kind = "device.replaced"
	KindDeviceLogAnchored   Kind = "device.log.anchored" // events: COSE_Sign1(LogBatch)

	KindCertIssued  Kind = "cert.issued"  // events: certificate (DER)
	KindCertRevoked Kind = "cert.revoked" // events: JSON {serial, reason}
	KindVerdict     Kind = "attest.verdict"

	KindTelemetryEpochOpened   Kind = "telemetry.epoch.opened"   // events: JSON {stream, epoch, bucket, sha256 of the envelope}
	KindTelemetryKeysDestroyed Kind = "telemetry.keys.destroyed" // events: JSON {}
	KindTelemetryReadDecided   Kind = "telemetry.read.decided"   // events: JSON decision

	KindFindingRaised Kind = "finding.raised" // events: JSON finding
	KindFindingClosed Kind = "finding.closed"

	KindRemedyDecided Kind = "remedy.decided" // events: JSON {device, phase, decision, reason}

	KindRetireOrdered  Kind = "retire.ordered"  // control: JSON {devices, warrant, reason}
	KindRetireWiped    Kind = "retire.wiped"    // events: COSE_Sign1(Receipt)
	KindRetireDisposed Kind = "retire.disposed" // events: JSON proof of disposal
)
