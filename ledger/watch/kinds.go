package watch

import (
	"slices"

	"github.com/hallmark-iot/hallmark/ledger"
)

// inControl and inEvents are the kinds of fact that this version knows, by the log they belong to. A kind that is in neither is told.
func inControl() []ledger.Kind {
	return []ledger.Kind{
		ledger.KindGenesis, ledger.KindInitialised, ledger.KindKeyCreated, ledger.KindKeyRetired, ledger.KindCACreated, ledger.KindCAEnded, ledger.KindCeremonyHeld, ledger.KindProductCreated, ledger.KindAccessChanged,
		ledger.KindEnrolmentChanged, ledger.KindBundleDueChanged, ledger.KindIsolationChanged, ledger.KindSchemaChanged,
		ledger.KindProposalMade, ledger.KindProposalApproved, ledger.KindProposalRefused, ledger.KindProposalTried,
		ledger.KindBundlePublished, ledger.KindReleaseProposed, ledger.KindSupplyDecided, ledger.KindSupplySummary, ledger.KindSupplyPolicyChanged, ledger.KindApproverBound, ledger.KindExceptionTaken, ledger.KindReleaseApproved, ledger.KindReleaseSUITSigned, ledger.KindReleasePublished, ledger.KindReleaseWithdrawn,
		ledger.KindReleaseClosed,
		ledger.KindCommandIssued, ledger.KindCommandCancelled, ledger.KindWarrantIssued,
		ledger.KindRolloutCreated, ledger.KindRolloutStarted, ledger.KindWaveStarted, ledger.KindTrancheIssued, ledger.KindWaveSucceeded, ledger.KindRolloutHalted,
		ledger.KindRolloutJoined, ledger.KindRolloutShut, ledger.KindRolloutPaused, ledger.KindRolloutResumed, ledger.KindRolloutAborted, ledger.KindRolloutRolledBack, ledger.KindRolloutCompleted,
		ledger.KindOrderCreated, ledger.KindOrderClosed, ledger.KindOrderCancelled, ledger.KindOrderAbandoned, ledger.KindRetireOrdered,
		ledger.KindOrderMastered, ledger.KindDeskAdded, ledger.KindDeskRemoved,
		ledger.KindSupplierChanged, ledger.KindPartChanged,
		ledger.KindForeignTrusted, ledger.KindForeignEnded,
		ledger.KindLegacyChanged, ledger.KindChipVendorTrusted, ledger.KindChipVendorEnded, ledger.KindChipsImported,
		ledger.KindOwnerCreated, ledger.KindOwnerEnded, ledger.KindClaimCodes, ledger.KindRecallIssued,
	}
}

func inEvents() []ledger.Kind {
	return []ledger.Kind{
		ledger.KindGenesis, ledger.KindOrderInspected, ledger.KindRecordRefused, ledger.KindDeviceProvisioned, ledger.KindDeviceEnrolled, ledger.KindDeviceOnboarded,
		ledger.KindEnrolRefused, ledger.KindEnrolmentApproved, ledger.KindEnrolmentRefused, ledger.KindKeyTravelled, ledger.KindDeviceState, ledger.KindDeviceUpdated, ledger.KindDeviceHealthy, ledger.KindDeviceUnhealthy,
		ledger.KindDeviceRefused, ledger.KindDeviceQuarantined, ledger.KindDeviceReleased, ledger.KindDeviceReprovisioned,
		ledger.KindDeviceInconsistent, ledger.KindDeviceOnTrust, ledger.KindDeviceGrouped, ledger.KindDeviceReplaced, ledger.KindDeviceLogForked, ledger.KindDeviceLogAnchored,
		ledger.KindDeviceForgotten,
		ledger.KindDeviceRekeyed, ledger.KindDeviceAttestKey, ledger.KindDeviceImported, ledger.KindVoucherIssued, ledger.KindVoucherRevoked, ledger.KindVoucherGuessed,
		ledger.KindCertIssued, ledger.KindCertRevoked, ledger.KindVerdict, ledger.KindCodeKeysGiven,
		ledger.KindDeviceClaimed, ledger.KindDeviceTransferred, ledger.KindTransferGivenUp, ledger.KindTransferDone,
		ledger.KindTelemetryEpochOpened, ledger.KindTelemetryKeysDestroyed, ledger.KindTelemetryReadDecided,
		ledger.KindFindingRaised, ledger.KindFindingClosed, ledger.KindRemedyDecided, ledger.KindRetireWiped, ledger.KindRetireWrittenOff, ledger.KindRetireDisposed,
		ledger.KindComplianceStated, ledger.KindAdvisoriesImported, ledger.KindSupplyReassessed,
		ledger.KindLotReceived, ledger.KindLotCertified, ledger.KindLotRecalled, ledger.KindLotCleared, ledger.KindOrderLotsNamed, ledger.KindOrderLotsTaken,
	}
}

// homes are the logs in which a kind of fact belongs.
var homes = home()

func home() map[ledger.Kind][]ledger.Log {
	out := map[ledger.Kind][]ledger.Log{}
	for _, k := range inControl() {
		out[k] = append(out[k], ledger.Control)
	}
	for _, k := range inEvents() {
		out[k] = append(out[k], ledger.Events)
	}
	return out
}

// belongs says whether a kind is known, and whether it is in the log where it belongs.
func belongs(log ledger.Log, k ledger.Kind) (known, here bool) {
	logs, known := homes[k]
	return known, slices.Contains(logs, log)
}
