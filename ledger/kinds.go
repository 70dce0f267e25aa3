package ledger

// The kinds of fact, in the order of a life: which log each belongs to, and what its Data holds; which members are private says private.go. "JSON" in a comment says that Data is a JSON object; otherwise it is the signed
// envelope itself.
const (
	KindGenesis     Kind = "genesis"              // both logs: JSON {origin}; so that no tree is empty
	KindInitialised Kind = "instance.initialised" // control: JSON {instance, version}
	KindKeyCreated  Kind = "key.created"          // control: JSON {name, purpose, kid, spki}
	KindKeyRetired  Kind = "key.retired"          // control: the same, and {behind, reason}: nothing is signed with it any more; so many devices believed no other
	KindCACreated   Kind = "ca.created"           // control: certificate (DER)
	KindCAEnded     Kind = "ca.ended"             // control: JSON {ski, role, cause}; taken out of service

	KindCeremonyHeld Kind = "ceremony.held" // control: COSE_Sign(Transcript); the whole names of those who took part are private

	KindProductCreated Kind = "product.created" // control: JSON product
	KindAccessChanged  Kind = "access.changed"  // control: JSON grant

	KindEnrolmentChanged Kind = "product.enrolment.changed" // control: JSON product.EnrolmentChange {product, mode, server_keys, binding, ocsp}

	KindApproverBound       Kind = "approver.bound"        // control: JSON release.ApproverChange {product, key, member}: whose a key of the release role is; no member: nobody's
	KindSupplyPolicyChanged Kind = "supply.policy.changed" // control: JSON supply.PolicyChange {product, policy}: what the supply gate asks of its releases
	KindExceptionTaken      Kind = "vex.taken"             // control: JSON supply.ExceptionTaken {product, digest, flaws, statements}: a signed document says why known flaws are none

	KindSupplierChanged Kind = "supplier.changed" // control: JSON parts.Supplier {id, name, names, site, by, at, ended}, with the reason when it was ended
	KindPartChanged     Kind = "part.changed"     // control: JSON parts.Part {id, supplier, kind, name, number, purl, by, at}
	KindLotReceived     Kind = "lot.received"     // events: JSON parts.Lot {id, part, number, received, certificate, certificate_size, by, at, recalled, reason}
	KindLotCertified    Kind = "lot.certified"    // events: the same; with the SHA-256 of its certificate of conformity
	KindLotRecalled     Kind = "lot.recalled"     // events: the same; it is known to be bad
	KindLotCleared      Kind = "lot.cleared"      // events: the same; it is good after all
	KindOrderLotsNamed  Kind = "order.lots.named" // events: JSON parts.Naming {order, lots}: its devices may have a part of these
	KindOrderLotsTaken  Kind = "order.lots.taken" // events: the same, and the reason: they have none after all

	KindBundleDueChanged Kind = "product.bundle-due.changed" // control: JSON product.BundleDueChange {product, days}

	KindIsolationChanged Kind = "product.isolation.changed" // control: JSON product.IsolationChange {product, layers}
	KindSchemaChanged    Kind = "product.schema.changed"    // control: JSON product.SchemaChange {product, parameters}

	KindProposalMade     Kind = "proposal.made"     // control: JSON {proposal, state, by, second, action, type, id, product, operation, asked_sha256, reason, comment, status}; so all of proposal.*
	KindProposalApproved Kind = "proposal.approved" // control: the same; by a second person
	KindProposalRefused  Kind = "proposal.refused"  // control: the same; refused, or withdrawn by its proposer
	KindProposalTried    Kind = "proposal.tried"    // control: the same; the proposer carried it out, or it failed with that status

	KindBundlePublished   Kind = "bundle.published"    // control: COSE_Sign(Bundle)
	KindReleaseProposed   Kind = "release.proposed"    // control: payload (Release)
	KindSupplyDecided     Kind = "supply.decided"      // control: payload (GateDecision): what the supply gate found of a release; its subject is the release's ID
	KindSupplySummary     Kind = "supply.summary"      // control: JSON, DSSE envelope of an in-toto statement (https://slsa.dev/verification_summary/v1): what was found of a release when it was published; its subject is the release's ID
	KindReleaseApproved   Kind = "release.approved"    // control: COSE_Sign(Release) with the approval
	KindReleaseSUITSigned Kind = "release.suit.signed" // control: JSON release.SUITSigned {release, kid, block}: who approved it signs its SUIT manifest too
	KindReleasePublished  Kind = "release.published"   // control: COSE_Sign(Release), threshold met
	KindReleaseWithdrawn  Kind = "release.withdrawn"   // control: JSON {release, reason}
	KindArtifactsPruned   Kind = "artifact.pruned"     // control: JSON release.Pruning {product, before, artifacts, deltas, strays, bytes}: uploads and deltas that nothing named were deleted
	KindReleaseClosed     Kind = "release.closed"      // control: JSON {release, id, install, reason}: withdrawn, and never to be installed again: install is the lowest security counter that may be
	KindCommandIssued     Kind = "command.issued"      // control: COSE_Sign1(Command)
	KindCommandCancelled  Kind = "command.cancelled"   // control: JSON {command, reason}
	KindWarrantIssued     Kind = "warrant.issued"      // control: COSE_Sign(Warrant)

	KindRolloutCreated    Kind = "rollout.created"        // control: JSON rollout.Spec
	KindRolloutStarted    Kind = "rollout.started"        // control: JSON {rollout, release, devices: root and count, waves, skipped}
	KindWaveStarted       Kind = "rollout.wave.started"   // control: JSON {rollout, wave, release, command, reason, counts, failed}, with the command of the wave
	KindTrancheIssued     Kind = "rollout.tranche.issued" // control: the same, with the number of the tranche: more devices of the wave are told
	KindWaveSucceeded     Kind = "rollout.wave.succeeded" // control: the same; every device of the wave is healthy
	KindRolloutHalted     Kind = "rollout.halted"         // control: the same, with reason and failed devices; halted by a gate
	KindRolloutPaused     Kind = "rollout.paused"         // control: the same; by a person
	KindRolloutJoined     Kind = "rollout.joined"         // control: JSON {rollout, wave, devices: root and count}: they came to fit after the wave began, and joined it
	KindRolloutShut       Kind = "rollout.shut"           // control: JSON {rollout, wave, reason}: nobody joins any more
	KindRolloutPaced      Kind = "rollout.paced"          // control: JSON {rollout, wave, bandwidth, reason}: how fast its bytes leave from now on
	KindRolloutResumed    Kind = "rollout.resumed"        // control: the same
	KindRolloutAborted    Kind = "rollout.aborted"        // control: the same; by a person, for good
	KindRolloutRolledBack Kind = "rollout.rolledback"     // control: the same; the command brings the devices back
	KindRolloutCompleted  Kind = "rollout.completed"      // control: the same; the last wave succeeded

	KindOrderCreated Kind = "order.created" // control: COSE_Sign1(Order)
	KindOrderClosed  Kind = "order.closed"  // control: JSON, with the job-end certificate

	KindOrderCancelled Kind = "order.cancelled" // control: JSON factory.Void {order, reason}: its file never came to use; records that come are alarms
	KindOrderAbandoned Kind = "order.abandoned" // control: JSON factory.Void {order, reason, records, made}: its station is gone; the same

	KindOrderMastered Kind = "order.mastered" // control: JSON factory.MasterUsed {product, hardware, revision, digest, desk}: the master that the order was made of; older ones are refused, but by a desk's word

	KindDeskAdded   Kind = "desk.added"   // control: JSON factory.DeskAdded {desk, order_key, cas, products, quota}: orders that its key signed are taken in; again: with other CAs or another quota
	KindDeskRemoved Kind = "desk.removed" // control: JSON factory.DeskRemoved {desk, order_key, reason}: none that was made since

	KindOrderInspected Kind = "order.inspected"      // events: JSON factory.Inspected: what a station says somebody saw of a first article
	KindRecordRefused  Kind = "order.record.refused" // events: JSON factory.Alarm: a production record that cannot be true

	KindDeviceProvisioned   Kind = "device.provisioned"   // events: COSE_Sign1(Record)
	KindDeviceEnrolled      Kind = "device.enrolled"      // events: JSON enrolment: a first LDevID, or one anew
	KindDeviceOnboarded     Kind = "device.onboarded"     // events: device.StateChange
	KindEnrolRefused        Kind = "enrol.refused"        // events: JSON {device, product, issuer, code, text}
	KindEnrolmentApproved   Kind = "enrolment.approved"   // events: JSON onboard.Decision {device, product, request, key, call, reason}: a person lets one request in
	KindEnrolmentRefused    Kind = "enrolment.refused"    // events: the same; a person does not
	KindKeyTravelled        Kind = "device.key.travelled" // events: JSON {device, product, key}: made by the server (serverkeygen), and weaker than the device's own
	KindDeviceState         Kind = "device.state.changed" // events: JSON device.StateChange {device, from, to, event, reason}, or a change of legitimacy
	KindDeviceUpdated       Kind = "device.updated"       // events: JSON result of a command; success, not yet health
	KindDeviceHealthy       Kind = "device.healthy"       // events: JSON {device, release, version, health}: runs a confirmed release and says it is well
	KindDeviceUnhealthy     Kind = "device.unhealthy"     // events: the same, or the result of a command that failed
	KindDeviceRefused       Kind = "device.refused"       // events: JSON {command, act, code, text}
	KindDeviceQuarantined   Kind = "device.quarantined"   // events: JSON device.StateChange
	KindDeviceReleased      Kind = "device.released"      // events: JSON device.StateChange
	KindDeviceReprovisioned Kind = "device.reprovisioned" // events: JSON result of the command
	KindDeviceInconsistent  Kind = "device.inconsistent"  // events: JSON device.Inconsistency {device, what, had, said, sides}: perhaps a clone
	KindDeviceOnTrust       Kind = "device.on-trust"      // events: JSON device.OnTrust {device, restored, counter, given}: more than a restored backup knows of it, believed once
	KindDeviceGrouped       Kind = "device.grouped"       // events: JSON device.Grouping {device, from, to, reason}
	KindDeviceForgotten     Kind = "device.forgotten"     // events: JSON device.Forgotten {device}: what was private of it is destroyed
	KindDeviceRekeyed       Kind = "device.rekeyed"       // events: JSON rekey.RekeyedData {device, voucher, record, old, new, origin, certificate, request}: both its keys are others now
	KindDeviceAttestKey     Kind = "device.attest-key"    // events: COSE_Sign(NewAttestKey): its evidence, log and receipts are signed by another key now
	KindDeviceImported      Kind = "device.imported"      // events: JSON foreign.Imported {device, product, hardware, format, name, identity}: another maker's, on the list of ours
	KindDeviceReplaced      Kind = "device.replaced"      // events: JSON {device, by, reason}
	KindDeviceLogForked     Kind = "device.log.forked"    // events: JSON devicelog.Fork: a copy of the device, or a restored state
	KindDeviceLogAnchored   Kind = "device.log.anchored"  // events: COSE_Sign1(LogBatch)

	KindVoucherIssued  Kind = "voucher.issued"  // events: JSON rekey.IssuedData {voucher, device, product, record, by, second, expires, today, many, reason}
	KindVoucherRevoked Kind = "voucher.revoked" // events: JSON rekey.EndedData {voucher, device, why, reason}: revoked, replaced or locked
	KindVoucherGuessed Kind = "voucher.guessed" // events: JSON rekey.GuessedData {voucher, device, tries}: somebody without its secret tries; it stays good

	KindForeignTrusted Kind = "foreign.ca.trusted" // control: JSON foreign.Trusted {id, product, certificate, chain, map, any}
	KindForeignEnded   Kind = "foreign.ca.ended"   // control: JSON {id, product, reason}: nothing that it signed is believed any more

	KindLegacyChanged Kind = "legacy.changed" // control: JSON legacy.Change {product, device, gateway, change, reason}: a client of another update system, or a gateway of such, is let in no more, or a gateway is

	KindChipVendorTrusted  Kind = "chip.vendor.trusted" // control: JSON chips.Trusted {vendor, certificates}: whose manifests of chips with keys are believed
	KindChipVendorEnded    Kind = "chip.vendor.ended"   // control: JSON {vendor, reason}: its word is not taken any more
	KindAdvisoriesImported Kind = "advisories.imported" // events: JSON supply.Imported {ecosystem, advisories, digest, newest}: what is known against components
	KindSupplyReassessed   Kind = "supply.reassessed"   // events: JSON supply.Reassessed {release, product, affected, unknown, troubles, appeared, gone, cause}: what is known against a release has changed
	KindChipsImported      Kind = "chips.imported"      // control: JSON chips.Imported {vendor, chips, digest}: a batch of its manifest

	KindCertIssued    Kind = "cert.issued"     // events: certificate (DER)
	KindCertRevoked   Kind = "cert.revoked"    // events: JSON {serial, reason}
	KindCodeKeysGiven Kind = "code.keys.given" // events: JSON protect.Given {release, keys, code_key_sha256}: before a device has them

	KindVerdict Kind = "attest.verdict" // events: JSON attest.Verdict, with the EAR

	KindOwnerCreated      Kind = "owner.created"            // control: JSON {owner, name}
	KindOwnerEnded        Kind = "owner.ended"              // control: the same; it may have no devices any more
	KindClaimCodes        Kind = "claim.codes.made"         // control: JSON {product, order, devices: the Merkle root and number}; those made before are void
	KindDeviceClaimed     Kind = "device.claimed"           // events: JSON {device, period, owner_digest, how, keyed, owner, salt, key, by}: it belongs to somebody
	KindDeviceTransferred Kind = "device.transferred"       // events: JSON {device, period, owner_digest, kind, legitimacy_to, reason, by}: it does not any more
	KindTransferGivenUp   Kind = "device.transfer.given-up" // events: JSON {device, period, reason, by}: it is not handed over, and belongs to whom it did
	KindTransferDone      Kind = "device.transfer.done"     // events: JSON {device, period, epoch, kind}: nothing is left of that time; keys of data up to that epoch are destroyed
	KindRecallIssued      Kind = "recall.issued"            // control: JSON owner.Recall, with the Merkle root and number of the devices

	KindTelemetryEpochOpened   Kind = "telemetry.epoch.opened"   // events: JSON {stream, epoch, bucket, sha256 of the envelope}
	KindTelemetryKeysDestroyed Kind = "telemetry.keys.destroyed" // events: JSON {}
	KindTelemetryReadDecided   Kind = "telemetry.read.decided"   // events: JSON decision

	KindFindingRaised Kind = "finding.raised" // events: JSON finding
	KindFindingClosed Kind = "finding.closed" // events: JSON finding, with why

	KindRemedyDecided Kind = "remedy.decided" // events: JSON {device, phase, decision, reason}

	KindRetireOrdered    Kind = "retire.ordered"     // control: JSON {devices, warrant, reason}
	KindRetireWiped      Kind = "retire.wiped"       // events: COSE_Sign1(Receipt)
	KindRetireWrittenOff Kind = "retire.written-off" // events: JSON retire.WriteOff {device, product, warrant, reason}: it ends without a receipt; the actor decided it
	KindRetireDisposed   Kind = "retire.disposed"    // events: JSON proof of disposal

	KindComplianceStated Kind = "compliance.stated" // events: JSON comply.Statement {product, framework, control, kind, text, by, at, review_by, rev}
)
