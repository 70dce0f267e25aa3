package httpapi

import (
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/parts"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

var (
	exampleDevice  = "0123456789abcdef0123456789abcdef"
	exampleRelease = strings.Repeat("ab", 32)
	exampleDay     = time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)
	exampleDigest  = make([]byte, 32)

	exampleClaimCode = "QXVMA-G2BTF-S7H85-W9ZT7-4PEXR"
)

// exampleCertificate is of a machine that nobody has.
const exampleCertificate = `-----BEGIN CERTIFICATE-----
MIIBcTCCARegAwIBAgIUbq/wKxzUrXzOc8zSeyBJ57Uq3mgwCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCY2kwIBcNMjYxMTIxMTMyMTQ3WhgPMjEyNjEwMjgxMzIxNDda
MA0xCzAJBgNVBAMMAmNpMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAERgYywPEK
gepc6WBqMqUq74jVUDhGwxVjnk4chfwrY/27n2cG5QPMFtVVvoS6WYShwFfeWttU
lTUweqal//CCMqNTMFEwHQYDVR0OBBYEFE58EttU6KmLbuhe9/HRXMkBnMiwMB8G
A1UdIwQYMBaAFE58EttU6KmLbuhe9/HRXMkBnMiwMA8GA1UdEwEB/wQFMAMBAf8w
CgYIKoZIzj0EAwIDSAAwRQIgWGL4nvLeBjLWdxiSdCVK4UOmqnkDLtNpo7oB3mid
4QYCIQCYcsDuHJ/h41IbT3fzlMsOcl80GOIpvcLT4wm3oc7jbg==
-----END CERTIFICATE-----
`

// exampleHistory is of a device that nobody has.
func exampleHistory() []byte {
	h, err := carton.EncodeHistory(carton.History{V: 1, Device: exampleDevice, Directive: []byte{0}, Checkin: []byte{0}, Evidence: []byte{0}})
	if err != nil {
		panic(err) // a constant
	}
	return h
}

// Examples are bodies of requests, by operation: each is one the operation understands. Envelopes are placeholders.
var Examples = map[string]any{
	"ask-device": QuestionRequest{Nonce: exampleDigest},
	"create-product": product.Product{
		ID: "pump", OEM: "acme", Name: "Pump", Hardware: []string{"A"}, Model: wire.ModelBlob, Suite: "HM-P256-1", EndOfSupport: exampleDay,
	},
	"set-bundle-due":    BundleDue{Days: 30},
	"set-supply-policy": supply.Policy{Mode: supply.Warn, MaxUnknown: 3},
	"ask-supply-gate":   GateQuestion{Components: [][]byte{exampleDigest}},
	"bind-approver":     ApproverRequest{Member: "person:alice"},
	"set-isolation":     IsolationPolicy{Layers: []wire.Layer{wire.LayerUser, wire.LayerFiles, wire.LayerCalls}},
	"set-enrolment":     product.Enrolment{Mode: product.Approved},
	"set-schema":        SchemaRequest{Parameters: wire.Schema{{Name: "report.every", Type: wire.TypeDuration, Min: "10s", Max: "1h0m0s"}, {Name: "wifi.key", Type: wire.TypeText, Secret: true}}},
	"approve-enrolment": EnrolmentDecision{Request: exampleRelease, Reason: "its key is the one on the label"},
	"refuse-enrolment":  EnrolmentDecision{Request: exampleRelease, Reason: "nobody has unpacked it yet"},
	"create-order": OrderRequest{
		Product: "pump", Hardware: "A", Quota: 100, NotAfter: exampleDay, Descriptor: []byte("descriptor"), StationPin: exampleDigest, Release: exampleRelease,
	},
	"take-master":      MasterRequest{Product: "pump", File: []byte("master")},
	"cancel-order":     Reason{"the file was lost on its way"},
	"abandon-order":    Reason{"the programming centre burnt down"},
	"import-records":   RecordsRequest{File: []byte("records")},
	"propose-release":  release.Spec{ID: "pump-1.2.0", Product: "pump", Version: "1.2.0", Counter: 3, Components: []release.Component{{Name: "app", Kind: "app", Version: "1.2.0", Artifact: exampleDigest}}},
	"sign-suit":        Envelope{Envelope: []byte("COSE_Sign1")},
	"approve-release":  Envelope{Envelope: []byte("COSE_Sign")},
	"save-query":       fleet.Saved{Name: "old pumps", Query: fleet.Query{Product: "pump", Filter: device.Filter{Version: "1.0.0"}}},
	"approve-proposal": DecisionRequest{Comment: "olga called: the traffic is real"},
	"refuse-proposal":  DecisionRequest{Comment: "not before the weekend"},
	"prune-artifacts":  PruneRequest{Older: 604800, Dry: true},
	"make-deltas":      DeltasOf{From: strings.Repeat("0", 64)},
	"pack-carton":      device.CartonOf{Group: "mine/shaft-3"},
	"take-history":     HistoryOf{History: exampleHistory()},
	"close-release": Reason{
		"CVE-2029-1234 in its TLS library: 1.2.1 mends it",
	},
	"withdraw-release": Reason{
		"CVE-2029-1234 in its TLS library",
	},
	"create-rollout": rollout.Spec{
		ID: "pump-1.2.0-eu", Product: "pump", Release: exampleDigest, Selection: rollout.Selection{All: true},
		Waves: []rollout.Wave{{Size: 10, Soak: 3600, Deadline: 86400, MaxFailures: 1}, {Percent: 100, Soak: 3600, Deadline: 604800, MaxFailuresRate: 2}},
	},
	"dry-run-rollout": rollout.Spec{
		ID: "pump-1.2.0-eu", Product: "pump", Release: exampleDigest, Selection: rollout.Selection{Group: "eu", Query: &device.Filter{Version: "1.1.0", Findings: true}},
		Waves: []rollout.Wave{{Percent: 100, Deadline: 86400}},
	},
	"pause-rollout":         Reason{"the support desk is closed until Monday"},
	"resume-rollout":        Reason{"the support desk is open again"},
	"shut-rollout":          Reason{"the line makes 1.2.0 now"},
	"halt-rollout":          Reason{"customers report noise"},
	"set-rollout-bandwidth": NewBandwidth{rollout.Bandwidth{All: 20_000_000, Each: 64_000}, "the line of the plant is narrow"},
	"abort-rollout":         Reason{"another release comes first"},
	"dry-run-command":       CommandRequest{Product: "pump", Act: wire.ActQuarantine, Devices: []string{exampleDevice}, Reason: "seen on a market place"},
	"create-command":        CommandRequest{Product: "pump", Act: wire.ActQuarantine, Devices: []string{exampleDevice}, TTL: 86400, Reason: "seen on a market place"},
	"group-devices":         GroupRequest{Devices: []string{exampleDevice}, Group: "eu/berlin", Reason: "sold to the Berlin clinic"},
	"create-owner":          OwnerRequest{Name: "Berlin clinic"},
	"create-claim-codes":    LabelsRequest{Product: "pump", Order: "ord-1"},
	"claim-device":          ClaimRequest{Code: exampleClaimCode},
	"give-up-handover":      Reason{Reason: "they changed their mind"},
	"transfer-devices":      TransferRequest{Devices: []string{exampleDevice}, Kind: owner.Refurbish, Reason: "its lease has ended"},
	"dry-run-transfer":      PreviewRequest{Devices: []string{exampleDevice}},
	"mark-stolen":           Reason{"police report 4711"},
	"mark-found":            Reason{"it was in the other van"},
	"create-recall": RecallRequest{
		Product: "pump", Reason: "the seal may leak", Remedy: "have the seal replaced at a service point", Due: "2099-06-30T00:00:00Z",
	},
	"dry-run-recall": RecallRequest{
		Product: "pump", Reason: "the seal may leak", Remedy: "have the seal replaced at a service point", Due: "2099-06-30T00:00:00Z",
	},
	"mark-mended":         Reason{"seal replaced"},
	"cancel-command":      Reason{"it was the wrong device"},
	"submit-warrant":      WarrantRequest{Envelope: []byte("COSE_Sign"), Devices: []string{exampleDevice}},
	"submit-ceremony":     CeremonyRequest{Transcript: []byte("COSE_Sign"), People: map[string]string{"alice": "Alice Example"}},
	"request-product":     ProductAsk{Like: "pump"},
	"activate-product":    ProductAnswer{Answer: []byte("CBOR")},
	"rotate-key":          KeyRequest{Role: keyring.Directive, Reason: "the quarterly change"},
	"retire-key":          KeyEnd{Reason: "no device needs it any more"},
	"publish-bundle":      Envelope{Envelope: []byte("COSE_Sign")},
	"request-issuer":      AuthorityRequest{Role: "operational", Unit: "2027", Purpose: "the present one ends in a year"},
	"install-issuer":      Answer{Content: []byte("CBOR")},
	"trust-root":          Answer{Content: []byte("DER")},
	"request-issuer-list": ListAsked{Purpose: "the operational CA of 2026 was stolen"},
	"put-issuer-list":     Answer{Content: []byte("DER")},
	"revoke-many":         BulkRevocation{Devices: []string{exampleDevice}, Code: 1, Dry: true},
	"close-finding":       Reason{"the device was on the bench"},
	"approve-remedy":      Reason{"seen on site: it is not ours"},
	"dismiss-remedy":      Reason{"the reference value was wrong"},
	"reprovision-remedy": ReprovideRequest{
		Reason: "the disk was replaced",
	},
	"state-control":    comply.Words{Kind: comply.Fulfilled, Text: "The manual says how, page 7.", ReviewBy: time.Date(2028, 6, 30, 0, 0, 0, 0, time.UTC)},
	"retire-devices":   retire.Order{Product: "pump", Devices: []string{exampleDevice}, Reason: "end of its lease", Warrant: []byte("COSE_Sign")},
	"write-off-device": Reason{"burnt on 3 May"},
	"dispose-device":   DisposeRequest{How: "recycled by GreenCycle, receipt 4711"},
	"move-device":      MoveRequest{Event: "lose", Reason: "not in its rack since the move"},
	"judge-device":     LegitimacyRequest{Legitimacy: "refurbished", Reason: "new board, tested"},
	"replace-device":   ReplacementRequest{By: strings.Repeat("9", 32), Reason: "its sensor broke"},
	"revoke-device":    RevokeRequest{Code: 1},
	"revoke-certificate": RevokeRequest{
		Code: 4,
	},
	"revoke-issuer":        RevokeRequest{Code: 2},
	"bind-identity":        IdentityRequest{Email: "alice@example.com"},
	"bind-certificate":     CertificateRequest{Certificate: exampleCertificate},
	"set-member-roles":     RolesRequest{Roles: []access.Role{access.Operator}, Scope: []string{"pump"}},
	"trust-foreign-ca":     ForeignRequest{Product: "pump", PEM: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", Map: "serialNumber"},
	"welcome-device":       Arriving{Trust: `{"logs": [], "witnesses": [], "quorum": 1}`, Custody: []byte{0xa0}},
	"admit-legacy-client":  legacy.Admission{Kind: legacy.DDI, Name: "pump-0042"},
	"refuse-legacy-client": ClientRefusal{Kind: legacy.DDI, Name: "pump-0042", Reason: "it was sold"},
	"add-legacy-gateway":   GatewayRequest{Name: "hall-3"},
	"end-legacy-gateway":   GatewayRequest{Name: "hall-3"},
	"end-foreign-ca":       Reason{Reason: "the maker lost its key"},
	"create-voucher":       VoucherRequest{Reason: "flash replaced at depot 4"},
	"revoke-voucher":       Reason{Reason: "the device works again"},
	"create-token":         TokenSpec{Caller: "token:ci", Kind: "machine", Roles: []access.Role{access.Operator}, Use: "token", Seconds: 86400},
	"set-supplier":         SupplierRequest{Name: "Acme Memory", Names: []string{"ACME Memory GmbH"}, Site: "https://memory.acme.example"},
	"end-supplier":         Reason{Reason: "it sold on what it had rejected"},
	"set-part":             PartRequest{Supplier: "acme-memory", Kind: parts.Hardware, Name: "NOR flash", Number: "W25Q128JV"},
	"receive-lot":          LotRequest{ID: "flash-2640", Part: "flash", Number: "2640/A", Received: exampleDay.AddDate(-4, 0, 0)},
	"recall-lot":           Reason{Reason: "it forgets what it holds below -20 °C"},
	"clear-lot":            Reason{Reason: "the supplier named another lot"},
	"name-order-lots":      LotNames{Lots: []string{"flash-2626"}},
	"take-order-lot":       LotTaken{Lot: "flash-2626", Reason: "it was on the other line"},
	"trust-chip-vendor":    VendorRequest{ID: "acme-silicon", PEM: exampleCertificate},
	"end-chip-vendor":      Reason{Reason: "its signing key was stolen"},
	"add-desk":             DeskRequest{Desk: []byte{0xd2}, Quota: 5000},
	"remove-desk":          Reason{Reason: "the notebook was stolen"},
	"register-order":       RegistrationRequest{File: []byte{0xd2}},
	"create-grant": telemetry.Grant{
		ID: "lab-2029", Reader: "person:alice", Product: "pump", Stream: "vibration", Purpose: "bearing study", Until: exampleDay,
	},
	"revoke-grant": RevokeGrantRequest{Product: "pump", Reason: "the study has ended"},
	"read-stream":  telemetry.ReadRequest{Device: exampleDevice, Stream: "vibration", Purpose: "bearing study", KEM: 0x0020, Key: exampleDigest},
}
