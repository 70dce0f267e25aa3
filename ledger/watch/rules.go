package watch

import (
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
)

// Rule is one thing that should not be in a log, or of a log.
type Rule struct {
	Name     string   `json:"name"`
	Severity Severity `json:"severity"`
	When     string   `json:"when"` // it is told
	Do       string   `json:"do"`   // what to do then

	kinds []ledger.Kind // it is about; none: every entry
	// judge says what is wrong with an entry, from what was before it; empty when nothing is. It changes nothing. Nil for what is
	// found of a log as a whole: see follow.go.
	judge func(*Memory, Policy, *line) string
}

// Rules are all there are.
func Rules() []Rule { return slices.Clone(rules) }

// about says whether the rule is for an entry: one that cannot be read is for the rules about every entry only.
func (r Rule) about(l *line) bool {
	return r.kinds == nil || l.err == nil && slices.Contains(r.kinds, l.kind)
}

// Names of rules that the code refers to.
const (
	ruleForked     = "log.forked"
	ruleSmaller    = "log.smaller"
	RuleUnverified = "log.unverified"
	ruleStale      = "log.stale"
	ruleWithheld   = "log.withheld"
	ruleFaces      = "log.faces"
	ruleFollowed   = "device.followed"

	ruleAhead         = "time.ahead"
	ruleFull          = "memory.full"
	ruleKey           = "key.unexpected"
	ruleDesk          = "desk.unexpected"
	ruleCA            = "ca.unexpected"
	ruleAdministrator = "access.administrator"
	ruleBundle        = "bundle.signatures"
	ruleRelease       = "release.signers"
	ruleWarrant       = "warrant.signers"
	ruleOrder         = "order.unsound"
)

// skew is by how much clocks may differ before it is told.
const skew = 5 * time.Minute

// What is to be done is the same for many.
const (
	doStop   = "the server or its keys may be in other hands: keep this, stop rollouts and orders, call security"
	doPeople = "ask the people named whether it was they; if not, the server or a key is in other hands"
	doKeep   = "keep the state directory and its evidence, show it to the witnesses, and trust nothing this server says"
)

var releaseKinds = []ledger.Kind{ledger.KindReleaseApproved, ledger.KindReleasePublished}

// rules are in the order of the documentation.
var rules = []Rule{
	{ruleForked, Critical, "the log is not a continuation of what it was; both checkpoints are signed", doKeep, nil, nil},
	{ruleSmaller, Critical, "the log shows fewer entries than it had, by a checkpoint that was witnessed later, or for a minute", doKeep, nil, nil},
	{RuleUnverified, High, "the log's files do not verify: signature, witnesses, tiles or entries", "ask the operator; a damaged file is named, a wrong key is not theirs", nil, nil},
	{ruleStale, High, "there has been no new witnessed checkpoint for too long: the log is not being witnessed, or is kept from us", "ask the operator and the witnesses; devices refuse what rests on old checkpoints", nil, nil},
	{ruleWithheld, High, "for too long entries could not be had that are under a new witnessed checkpoint, or the log is smaller than a device was shown it", doKeep, nil, nil},
	{ruleFaces, Critical, "a device's log tells of a tree that the log has signed for it, and that is not the one shown here", doKeep, []ledger.Kind{ledger.KindDeviceLogAnchored}, nil},

	{"entry.malformed", High, "an entry cannot be read, or holds something else than its kind says", doStop, nil, malformed},
	{"kind.unknown", Low, "a fact is of a kind that this version does not know, so that nobody judged it", "use a newer version of hallmark", nil, unknown},
	{"kind.misplaced", High, "a fact is in the log where its kind does not belong", doStop, nil, misplaced},
	{"time.backwards", Medium, "a fact says that it is more than five minutes older than the one before it", "look at the server's clock; facts may have been made up afterwards", nil, backwards},
	{ruleAhead, Medium, "a fact says that it is more than five minutes later than the witnesses saw it", "look at the server's clock", nil, ahead},
	{ruleFull, High, "there is more to remember than the bound of the policy, so that rules about devices may not see", "raise devices in the policy", nil, full},

	{ruleKey, High, "the instance has made a key that is not on the list", doPeople, []ledger.Kind{ledger.KindKeyCreated}, unexpectedKey},
	{ruleDesk, High, "orders of a desk are taken in whose order key is not on the list of keys", doPeople, []ledger.Kind{ledger.KindDeskAdded}, unexpectedDesk},
	{ruleCA, Critical, "a certificate authority was made that is not on the list, and is not one of an order under a known one", doStop, []ledger.Kind{ledger.KindCACreated}, unexpectedCA},
	{"product.unexpected", Medium, "there is a product that is not in the policy", doPeople, []ledger.Kind{ledger.KindProductCreated, ledger.KindBundlePublished}, unexpectedProduct},
	{ruleAdministrator, High, "somebody who is not on the list was made administrator", doPeople, []ledger.Kind{ledger.KindAccessChanged}, administrator},

	{ruleBundle, Critical, "a trust bundle is not signed as the one before it asks, or does not follow it by one version", doStop, []ledger.Kind{ledger.KindBundlePublished}, bundleSignatures},
	{"bundle.keys", Critical, "a trust bundle names a key that is not on the list, or, without a list, was not in the one before", doPeople, []ledger.Kind{ledger.KindBundlePublished}, bundleKeys},
	{"bundle.weaker", High, "a trust bundle asks for less: a threshold, quorum or floor is lower, a witness is gone, a log's key is another, older checkpoints or other anchors are good", doPeople, []ledger.Kind{ledger.KindBundlePublished}, bundleWeaker},

	{ruleRelease, Critical, "a release was approved or published without valid signatures of so many of the keys on the list", doStop, releaseKinds, releaseSigners},
	{"release.unproposed", High, "a release was approved or published that nobody had proposed", doStop, releaseKinds, unproposed},
	{"release.four-eyes", High, "a release was approved by who proposed it, or published with fewer approvers than signatures are asked for", doPeople, releaseKinds, fourEyes},
	{"release.parts", Medium, "a release is for hardware, or has a component, that is not on the list", doPeople, []ledger.Kind{ledger.KindReleaseProposed, ledger.KindReleasePublished}, releaseParts},
	{"release.unpublished", High, "a rollout or command brings a release that was never published, or was withdrawn", doPeople, []ledger.Kind{ledger.KindRolloutCreated, ledger.KindCommandIssued}, notGood},

	{"command.signer", Critical, "a command is not signed by the directive key, or is recorded under another name", doStop, []ledger.Kind{ledger.KindCommandIssued}, commandSigner},
	{"command.many", High, "within an hour commands of one act were for more devices than the policy allows", doPeople, []ledger.Kind{ledger.KindCommandIssued}, commandMany},
	{"command.warrant", Critical, "a command that needs a warrant has none that allows it", doStop, []ledger.Kind{ledger.KindCommandIssued}, commandWarrant},
	{ruleWarrant, Critical, "a warrant is not signed by so many of the keys on the list", doStop, []ledger.Kind{ledger.KindWarrantIssued}, warrantSigners},
	{"warrant.devices", High, "a warrant is for more devices than the policy allows", doPeople, []ledger.Kind{ledger.KindWarrantIssued}, warrantDevices},

	{ruleOrder, Critical, "a production order is not signed by a key that was for orders when it was made, the instance's or a desk's, or its CA is not one that was made for orders", doStop, []ledger.Kind{ledger.KindOrderCreated}, orderUnsound},
	{"order.ended", High, "the CA of an order outlives it: a device was made or recorded after the order's end or closing", doStop, []ledger.Kind{ledger.KindDeviceProvisioned}, orderEnded},
	{"order.quota", Critical, "a device was made beyond the order's quota", doStop, []ledger.Kind{ledger.KindDeviceProvisioned}, overQuota},
	{"device.record", Critical, "a production record is of no known order or of another station, or its certificate or keys do not hold", doStop, []ledger.Kind{ledger.KindDeviceProvisioned}, recordUnsound},
	{"device.twice", Critical, "a device, chip, ticket or key was made twice", doStop, []ledger.Kind{ledger.KindDeviceProvisioned}, madeTwice},
	{"cert.issuer", Critical, "a certificate was issued by an authority that is not known", doStop, []ledger.Kind{ledger.KindCertIssued}, certIssuer},
	{"cert.unborn", Critical, "a certificate was issued to a device without a production record", doStop, []ledger.Kind{ledger.KindCertIssued}, certUnborn},
	{"cert.retired", High, "a certificate was issued to a device that was wiped or taken out of service", doStop, []ledger.Kind{ledger.KindCertIssued}, certRetired},
	{ruleFollowed, High, "a device's log tells of a command that is not the one in that place: it was shown another log, or does not tell the truth", "compare the device with its chain of custody (`hallmark log trace`)", []ledger.Kind{ledger.KindDeviceLogAnchored}, nil},
	{"device.suspect", Info, "the server itself tells of a device that is perhaps a copy, or of a production record that cannot be true", "look at the device's findings", []ledger.Kind{ledger.KindDeviceInconsistent, ledger.KindDeviceLogForked, ledger.KindRecordRefused}, suspect},
}

func malformed(_ *Memory, _ Policy, l *line) string {
	if l.err == nil {
		return ""
	}
	return fmt.Sprintf("it cannot be read: %.300v", l.err)
}

func unknown(_ *Memory, _ Policy, l *line) string {
	if len(l.kind.Logs()) > 0 || l.kind == "" {
		return ""
	}
	return fmt.Sprintf("the kind %q is not known to this version", l.kind)
}

func misplaced(_ *Memory, _ Policy, l *line) string {
	if logs := l.kind.Logs(); len(logs) == 0 || slices.Contains(logs, l.Log) {
		return ""
	}
	return fmt.Sprintf("%s does not belong into the log %s", l.kind, l.Log)
}

func backwards(m *Memory, _ Policy, l *line) string {
	before := m.Clock[l.Log]
	if l.at.IsZero() || !l.at.Before(before.Add(-skew)) {
		return ""
	}
	return fmt.Sprintf("it says %s, and an entry before it %s", stamp(l.at), stamp(before))
}

func ahead(_ *Memory, _ Policy, l *line) string {
	if !l.at.After(l.seen.Add(skew)) {
		return ""
	}
	return fmt.Sprintf("it says %s, and the witnesses saw it at %s", stamp(l.at), stamp(l.seen))
}

func full(m *Memory, p Policy, _ *line) string {
	if !m.Full || m.FullTold {
		return ""
	}
	return fmt.Sprintf("more than %d devices, or %d of something else", p.devices(), maxOf)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
