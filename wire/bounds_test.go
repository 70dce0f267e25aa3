package wire

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/suite"
)

// swell gives each string, byte string and list in v, one after the other, more than any message may have, and puts it back.
func swell(v reflect.Value, at string, then func(at string)) {
	const bytesOfIt, elements = 1<<20 + 1, 5000
	set := func(big reflect.Value) {
		was := reflect.New(v.Type()).Elem()
		was.Set(v)
		v.Set(big)
		then(at)
		v.Set(was)
	}
	switch {
	case v.Kind() == reflect.String:
		set(reflect.ValueOf(strings.Repeat("a", bytesOfIt)).Convert(v.Type()))
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		set(reflect.ValueOf(bytes.Repeat([]byte{1}, bytesOfIt)).Convert(v.Type()))
	case v.Kind() == reflect.Slice:
		many := reflect.MakeSlice(v.Type(), elements, elements)
		for i := range elements {
			if v.Len() > 0 {
				many.Index(i).Set(v.Index(0))
			}
		}
		set(many)
		if v.Len() > 0 {
			swell(v.Index(0), at+"[0]", then)
		}
	case v.Kind() == reflect.Pointer && !v.IsNil():
		swell(v.Elem(), at, then)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			swell(v.Field(i), at+"."+v.Type().Field(i).Name, then)
		}
	}
}

// bound is the law of every message: what is encoded is decoded, as the same, and what is too large is not encoded.
func bound[T any](encode func(T) ([]byte, error), decode func([]byte) (T, error), sample T) func(*testing.T) {
	return func(t *testing.T) {
		again := func(at string, data []byte) {
			t.Helper()
			read, err := decode(data)
			if err != nil {
				t.Fatalf("%s: encoded to %d bytes, and not decoded: %v", at, len(data), err)
			}
			if twice, err := encode(read); err != nil || !bytes.Equal(twice, data) {
				t.Fatalf("%s: decoded, and encoded to something else: %v", at, err)
			}
		}
		data, err := encode(sample)
		if err != nil {
			t.Fatal(err)
		}
		again("", data)
		refused := 0
		swell(reflect.ValueOf(&sample).Elem(), "", func(at string) {
			data, err := encode(sample)
			if err != nil {
				refused++
				return
			}
			again(at, data)
		})
		if refused == 0 {
			t.Error("nothing in it is bounded")
		}
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	p := newPeople(t, 2, 2)
	_, spki := newKey(t)
	claim, _ := testClaim(t)
	old, identity, next := keyOf(t, suite.P256), keyOf(t, suite.P256), keyOf(t, suite.P256)
	attest := must[[]byte](t)(SignNewAttestKey(NewAttestKey{Device: someDevice, Origin: "soft", Bundle: 2}, old, identity, next))
	attest, _, err := ThresholdPayload(TypeAttestKey, attest)
	if err != nil {
		t.Fatal(err)
	}
	tree, _ := pruneTree(9, 2, 5)
	logged := Logged{Entry: []byte("e"), Proof: Proof{
		Index: 1, Size: 2, Path: [][]byte{d32(1)}, LogSignature: make([]byte, 64), Cosignatures: []Cosignature{{Witness: "w", Time: 5, Signature: make([]byte, 64)}},
	}}
	event := LogEvent{Seq: 1, Epoch: 1, Kind: "boot", Cause: &LogRef{Origin: "log/control"}, Data: []byte("x")}
	origin := LogOrigin(someDevice, spki)
	head := must[[32]byte](t)(NextLogHead(origin, someDevice, event))
	laws := map[string]func(*testing.T){
		"NewAttestKey": bound(EncodeNewAttestKey, DecodeNewAttestKey, must[NewAttestKey](t)(DecodeNewAttestKey(attest))),
		"Bundle":       bound(EncodeBundle, DecodeBundle, sampleBundle(p.role, p.role)),
		"CARequest":    bound(EncodeCARequest, DecodeCARequest, sampleCARequest(spki)),
		"CAGrant":      bound(EncodeCAGrant, DecodeCAGrant, CAGrant{Request: d32(1), Chain: [][]byte{{1}, {2}}}),
		"CRLRequest":   bound(EncodeCRLRequest, DecodeCRLRequest, sampleCRLRequest()),
		"Checkin": bound(EncodeCheckin, DecodeCheckin, Checkin{
			Nonce: d32(1), State: "active", Knows: []string{"delta1"}, Results: []Result{{Command: d32(1), Act: ActInstall, Outcome: OutcomeDone, Seq: 1}},
		}),
		"CheckinReply": bound(EncodeCheckinReply, DecodeCheckinReply, CheckinReply{Time: 1, Challenge: d32(3), Standing: "active"}),
		"AttestReply":  bound(EncodeAttestReply, DecodeAttestReply, AttestReply{Status: "affirming", Reasons: []string{"x"}}),
		"ChipArea":     bound(EncodeChipArea, DecodeChipArea, sampleChipArea()),
		"Command": bound(EncodeCommand, DecodeCommand, Command{
			ID: "c", Product: "pump", Act: ActInstall, Devices: DeviceSet{Root: d32(1), Count: 2}, Release: d32(2), Issued: 1, Expires: 2,
		}),
		"Warrant": bound(EncodeWarrant, DecodeWarrant, Warrant{ID: "w", Product: "pump", Act: ActWipe, Devices: DeviceSet{Root: d32(1), Count: 1}, Issued: 1, Expires: 2}),
		"Directive": bound(EncodeDirective, DecodeDirective, Directive{
			Device: "d", Counter: 1, Nonce: d32(1), Act: ActInstall, Command: d32(2), Issued: 1, Expires: 2,
		}),
		"OfflineDirective": bound(EncodeOfflineDirective, DecodeOfflineDirective, OfflineDirective{Device: "d", Counter: 1, Command: d32(2), Issued: 1, Expires: 2}),
		"Delivery":         bound(EncodeDelivery, DecodeDelivery, Delivery{Directive: []byte{1}, Command: logged, Member: Membership{Path: [][]byte{d32(1)}}}),
		"Config":           bound(EncodeConfig, DecodeConfig, []ConfigEntry{{Name: "a.b", Value: "1"}, {Name: "c", Value: ""}}),
		"Custody": bound(EncodeCustody, DecodeCustody, Custody{
			V: 1, Device: "d", Station: []byte{1}, Logs: []CustodyLog{tree}, Members: []CustodyMember{{Index: 2, Member: Membership{Index: 1, Path: [][]byte{d32(1)}}}}, Left: 3,
		}),
		"LogEvent": bound(EncodeLogEvent, DecodeLogEvent, event),
		"LogBatch": bound(EncodeLogBatch, DecodeLogBatch, LogBatch{
			Device: someDevice, First: 1, Last: 1, Prev: origin[:], Head: head[:], BootCount: 1, Events: []LogEvent{event},
		}),
		"Logged":   bound(EncodeLogged, DecodeLogged, logged),
		"LogReply": bound(EncodeLogReply, DecodeLogReply, LogReply{Acked: 3, Anchor: &logged}),
		"Evidence": bound(EncodeEvidence, DecodeEvidence, Evidence{
			Nonce: d32(1), InstanceID: append([]byte{1}, d32(2)...), Profile: PSAProfile, ClientID: 1, Implementation: d32(3),
			Components: []Measured{{Type: "App", Value: d32(4), SignerID: d32(5)}}, Device: "d",
		}),
		"Fact": bound(EncodeFact, DecodeFact, Fact{V: 1, UID: bytes.Repeat([]byte{1}, 16), Kind: "a.b", Cause: &FactCause{Log: "control", Index: 3}, Data: []byte("x")}),
		"GateDecision": bound(EncodeGateDecision, DecodeGateDecision, GateDecision{
			V: 1, Product: "pump", Subject: [][]byte{d32(0)}, DB: d32(0), Policy: d32(0), At: 7, OK: true, Steps: []GateStep{{N: 1, OK: true}, {N: 2, OK: true}},
		}),
		"Genuine":       bound(EncodeGenuine, DecodeGenuine, sampleGenuine()),
		"DeviceProof":   bound(EncodeDeviceProof, DecodeDeviceProof, DeviceProof{V: 1, Device: tested, Nonce: d32(0), Attest: []byte{1}, Evidence: []byte{2}}),
		"BundleStep":    bound(EncodeBundleStep, DecodeBundleStep, BundleStep{Seen: &logged}),
		"NewestBundle":  bound(EncodeNewestBundle, DecodeNewestBundle, NewestBundle{Version: 1, Logged: logged}),
		"HomeHint":      bound(EncodeHomeHint, DecodeHomeHint, HomeHint{Record: []byte{1, 2}, Server: "https://own.example"}),
		"HomeOffer":     bound(EncodeHomeOffer, func(b []byte) (HomeOffer, error) { o, _, err := DecodeHomeOffer(b); return o, err }, offered(t, "https://own.example")),
		"Inspection":    bound(EncodeInspection, DecodeInspection, Inspection{Order: "o", Station: d32(0), Record: d32(0), Device: someDevice, Notes: "scratched", By: "ola", Seq: 1}),
		"Master":        bound(EncodeMaster, DecodeMaster, testMaster(t)),
		"MasterContent": bound(EncodeMasterContent, DecodeMasterContent, MasterContent{Bundle: []byte{1}, Release: []byte{2}, Params: testContent().Params}),
		"Station":       bound(EncodeStation, DecodeStation, Station{Name: "s", OEM: "acme", Module: "soft", Serial: "1", RecordKey: spki, WrapKey: []byte{1}, ContentKey: []byte{2}, WrapAlg: WrapOAEPSHA1, ContentAlg: WrapOAEPSHA1}),
		"Order":         bound(EncodeOrder, DecodeOrder, testOrder(t)),
		"OrderContent":  bound(EncodeOrderContent, DecodeOrderContent, testContent()),
		"OrderFile":     bound(EncodeOrderFile, DecodeOrderFile, OrderFile{Order: []byte{1}, Content: []byte{2}, Payload: [][]byte{make([]byte, 17)}}),
		"Ownership":     bound(EncodeOwnership, DecodeOwnership, Ownership{Owner: d32(1), Key: spki}),
		// Of a frame the body is looked at, which has a type of its own.
		"PortFrame": bound(func(f PortFrame) ([]byte, error) {
			return tail(EncodePortFrame(f.Kind, PortFault{Code: "c", Text: string(f.Body)}))
		}, func(b []byte) (PortFrame, error) {
			f, err := DecodePortFrame(b)
			if err == nil {
				var p PortFault
				p, err = DecodePortBody[PortFault](f)
				f.Body = []byte(p.Text)
			}
			return f, err
		}, PortFrame{Kind: PortError, Body: []byte("t")}),
		"Receipt":         bound(EncodeReceipt, DecodeReceipt, Receipt{Device: "dev", Command: d32(3), Warrant: "w1", Erased: []string{"slot a"}, Keys: []string{"attest"}, LogHead: d32(3), At: 5}),
		"Record":          bound(EncodeRecord, DecodeRecord, testRecord()),
		"JobEnd":          bound(EncodeJobEnd, DecodeJobEnd, JobEnd{Order: "o", Station: d32(0), Records: 2, Made: 1, Scrapped: 1, Last: d32(0), Root: d32(0), KeyDestroyed: true}),
		"Desk":            bound(EncodeDesk, DecodeDesk, Desk{Name: "berlin", OEM: "acme", OrderKey: spki, CAs: [][]byte{aCA(t)}, Issued: 1}),
		"Registration":    bound(EncodeRegistration, DecodeRegistration, sampleRegistration([]byte{1})),
		"Release":         bound(EncodeRelease, DecodeRelease, sampleRelease()),
		"Epoch":           bound(EncodeEpoch, DecodeEpoch, Epoch{Device: "d", Stream: "s", Epoch: 1, Bucket: "b", KEM: 0x50, Sealed: make([]byte, 80)}),
		"Series":          bound(EncodeSeries, DecodeSeries, Series{Device: "d", Stream: "s", Epoch: 1, Last: 3, Head: d32(2)}),
		"Upload":          bound(EncodeUpload, DecodeUpload, Upload{Epochs: [][]byte{{1}}, Records: []Sealed{{Stream: "s", Epoch: 1, Seq: 1, Data: make([]byte, 30)}}, Series: [][]byte{{2}}}),
		"Transcript":      bound(EncodeTranscript, DecodeTranscript, held(t, p, 3)),
		"Step":            bound(EncodeStep, DecodeStep, held(t, p, 1).Steps[0]),
		"CeremonyRequest": bound(EncodeCeremonyRequest, DecodeCeremonyRequest, sampleCeremonyRequest(t)),
		"CeremonyAnswer":  bound(EncodeCeremonyAnswer, DecodeCeremonyAnswer, CeremonyAnswer{Request: d32(1), Root: []byte{1}, Grants: [][]byte{must[[]byte](t)(EncodeCAGrant(CAGrant{Request: d32(1), Chain: [][]byte{{1}, {2}}}))}, Bundle: []byte{2}}),
		"Verdict":         bound(EncodeVerdict, DecodeVerdict, Verdict{Device: "d", Evidence: d32(1), Status: "affirming"}),
		"RekeyClaim":      bound(EncodeRekeyClaim, DecodeRekeyClaim, claim),
		"RecoveryKit":     bound(EncodeRecoveryKit, DecodeRecoveryKit, testKit()),
	}
	for name, law := range laws {
		t.Run(name, law)
	}
	for _, name := range encoders(t) {
		if laws[name] == nil {
			t.Errorf("Encode%s is held to no bound here", name)
		}
	}
}

// tail takes the length off a frame.
func tail(frame []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return frame[4:], nil
}

// encoders are the names of what this package encodes.
func encoders(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				if name, ok := strings.CutPrefix(f.Name.Name, "Encode"); ok {
					names = append(names, name)
				}
			}
		}
	}
	if len(names) < 40 {
		t.Fatalf("only %q found", names)
	}
	return names
}
