package ledger

// inControl and inEvents are the kinds of fact, by the log that they belong to. Who watches a log tells of a kind that is in neither, and of one in the other's log.
func inControl() []Kind {
	return []Kind{
		KindGenesis, KindInitialised, KindKeyCreated, KindKeyRetired, KindCACreated, KindCAEnded, KindCeremonyHeld, KindProductCreated, KindAccessChanged,
		KindEnrolmentChanged, KindBundleDueChanged, KindIsolationChanged, KindSchemaChanged,
		KindProposalMade, KindProposalApproved, KindProposalRefused, KindProposalTried,
		KindBundlePublished, KindReleaseProposed, KindSupplyDecided, KindSupplySummary, KindSupplyPolicyChanged, KindApproverBound, KindExceptionTaken, KindReleaseApproved, KindReleaseSUITSigned, KindReleasePublished, KindReleaseWithdrawn,
		KindReleaseClosed, KindArtifactsPruned,
		KindCommandIssued, KindCommandCancelled, KindWarrantIssued,
		KindRolloutCreated, KindRolloutStarted, KindWaveStarted, KindTrancheIssued, KindWaveSucceeded, KindRolloutHalted,
		KindRolloutJoined, KindRolloutShut, KindRolloutPaced, KindRolloutPaused, KindRolloutResumed, KindRolloutAborted, KindRolloutRolledBack, KindRolloutCompleted,
		KindOrderCreated, KindOrderClosed, KindOrderCancelled, KindOrderAbandoned, KindRetireOrdered,
		KindOrderMastered, KindDeskAdded, KindDeskRemoved,
		KindSupplierChanged, KindPartChanged,
		KindForeignTrusted, KindForeignEnded,
		KindLegacyChanged, KindChipVendorTrusted, KindChipVendorEnded, KindChipsImported,
		KindOwnerCreated, KindOwnerEnded, KindClaimCodes, KindRecallIssued,
	}
}

func inEvents() []Kind {
	return []Kind{
		KindGenesis, KindOrderInspected, KindRecordRefused, KindDeviceProvisioned, KindDeviceEnrolled, KindDeviceOnboarded,
		KindEnrolRefused, KindEnrolmentApproved, KindEnrolmentRefused, KindKeyTravelled, KindDeviceState, KindDeviceUpdated, KindDeviceHealthy, KindDeviceUnhealthy,
		KindDeviceRefused, KindDeviceQuarantined, KindDeviceReleased, KindDeviceReprovisioned,
		KindDeviceInconsistent, KindDeviceOnTrust, KindDeviceGrouped, KindDeviceReplaced, KindDeviceLogForked, KindDeviceLogAnchored,
		KindDeviceForgotten,
		KindDeviceRekeyed, KindDeviceAttestKey, KindDeviceImported, KindVoucherIssued, KindVoucherRevoked, KindVoucherGuessed,
		KindCertIssued, KindCertRevoked, KindVerdict, KindCodeKeysGiven,
		KindDeviceClaimed, KindDeviceTransferred, KindTransferGivenUp, KindTransferDone,
		KindTelemetryEpochOpened, KindTelemetryKeysDestroyed, KindTelemetryReadDecided,
		KindFindingRaised, KindFindingClosed, KindRemedyDecided, KindRetireWiped, KindRetireWrittenOff, KindRetireDisposed,
		KindComplianceStated, KindAdvisoriesImported, KindSupplyReassessed,
		KindLotReceived, KindLotCertified, KindLotRecalled, KindLotCleared, KindOrderLotsNamed, KindOrderLotsTaken,
	}
}

var homes = func() map[Kind][]Log {
	out := map[Kind][]Log{}
	for _, k := range inControl() {
		out[k] = append(out[k], Control)
	}
	for _, k := range inEvents() {
		out[k] = append(out[k], Events)
	}
	return out
}()

// Logs are the logs in which a kind of fact belongs: one, but for the first fact of both. Of a kind that this version does not know there is none.
func (k Kind) Logs() []Log { return homes[k] }
