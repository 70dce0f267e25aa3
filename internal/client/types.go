package client

import (
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// What the API takes and gives, for those who call it and do not serve it.
type (
	ClientRefusal      = httpapi.ClientRefusal
	GateQuestion       = httpapi.GateQuestion
	SupplierRequest    = httpapi.SupplierRequest
	PartRequest        = httpapi.PartRequest
	LotRequest         = httpapi.LotRequest
	BundleView         = httpapi.BundleView
	Certificate        = httpapi.Certificate
	CommandRequest     = httpapi.CommandRequest
	CredentialView     = httpapi.CredentialView
	DevicePage         = httpapi.Page[fleet.Device]
	Entry              = httpapi.Entry
	Event              = httpapi.Event
	GroupRequest       = httpapi.GroupRequest
	Issuer             = httpapi.Issuer
	AuthorityRequest   = httpapi.AuthorityRequest
	Requested          = httpapi.Requested
	BulkRevocation     = httpapi.BulkRevocation
	LegitimacyRequest  = httpapi.LegitimacyRequest
	MoveRequest        = httpapi.MoveRequest
	OrderRequest       = httpapi.OrderRequest
	OrderView          = httpapi.OrderView
	Outcome            = httpapi.Outcome
	CartonView         = httpapi.CartonView
	ReleaseView        = httpapi.ReleaseView
	DeltaView          = httpapi.DeltaView
	StoredArtifact     = httpapi.StoredArtifact
	PruneRequest       = httpapi.PruneRequest
	ReplacementRequest = httpapi.ReplacementRequest
	ReprovideRequest   = httpapi.ReprovideRequest
	QuestionView       = httpapi.QuestionView
	VerdictView        = httpapi.VerdictView
	RevokeGrantRequest = httpapi.RevokeGrantRequest
	RolesRequest       = httpapi.RolesRequest
	Standing           = httpapi.Standing
	TokenSpec          = httpapi.TokenSpec
	EnrolmentDecision  = httpapi.EnrolmentDecision
	VoucherRequest     = httpapi.VoucherRequest
	ForeignRequest     = httpapi.ForeignRequest
	Arriving           = httpapi.Arriving
	WarrantReply       = httpapi.WarrantReply
)

// MaxRecords bounds a record file, bytes.
const MaxRecords = httpapi.MaxRecords
