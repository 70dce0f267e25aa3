package console

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/wire"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/rollout"
)

// A tone is good, warn, bad, busy or, where there is nothing to say, empty. It is never the only sign: a word and a shape go
// with it.

func stateTone(s string) string {
	switch device.State(s) {
	case device.Active:
		return "good"
	case device.Quarantined, device.Suspected, device.Lost:
		return "bad"
	case device.Dormant, device.Maintenance, device.Decommissioning:
		return "warn"
	case device.Provisioned, device.Onboarded:
		return "busy"
	case device.Decommissioned, device.Disposed, device.Moved:
	}
	return ""
}

func stateWords(s string) string {
	switch device.State(s) {
	case device.Provisioned:
		return "Provisioned: made, and not heard of yet"
	case device.Onboarded:
		return "Onboarded: it has still to prove itself"
	case device.Active:
		return "Active"
	case device.Quarantined:
		return "In quarantine: it talks to nobody but Hallmark"
	case device.Dormant:
		return "Dormant"
	case device.Maintenance:
		return "Out of service for repair"
	case device.Decommissioning:
		return "Being decommissioned: it waits for its wipe"
	case device.Decommissioned:
		return "Decommissioned"
	case device.Disposed:
		return "Disposed of"
	case device.Moved:
		return "Moved: another instance has it"
	case device.Lost:
		return "Lost: nobody knows where it is"
	case device.Suspected:
		return "Suspected clone: two devices may hold its identity"
	}
	return orUnknown(s)
}

func legitimacyTone(s string) string {
	switch device.Legitimacy(s) {
	case device.Genuine, device.Refurbished, device.Resold:
		return "good"
	case device.Recalled, device.Unknown, device.Imported:
		return "warn"
	case device.Stolen:
		return "bad"
	}
	return "warn"
}

func assuranceTone(s string) string {
	if device.Assurance(s) == device.Enforces {
		return "good"
	}
	return "warn"
}

func healthTone(s string) string {
	switch s {
	case "healthy":
		return "good"
	case "unhealthy":
		return "bad"
	}
	return ""
}

func verdictTone(s string) string {
	switch s {
	case "affirming":
		return "good"
	case "contraindicated":
		return "bad"
	case "warning":
		return "warn"
	}
	return ""
}

func severities() []monitor.Severity {
	return []monitor.Severity{monitor.Critical, monitor.High, monitor.Medium, monitor.Low}
}

func severityTone(s monitor.Severity) string {
	switch s {
	case monitor.Critical, monitor.High:
		return "bad"
	case monitor.Medium:
		return "warn"
	case monitor.Low:
	}
	return ""
}

func phaseTone(p rollout.Phase) string {
	switch p {
	case rollout.Completed:
		return "good"
	case rollout.Running:
		return "busy"
	case rollout.Paused, rollout.Aborting, rollout.Aborted, rollout.RolledBack:
		return "warn"
	case rollout.Halted:
		return "bad"
	case rollout.Created:
	}
	return ""
}

func classTone(c rollout.Class) string {
	switch c {
	case rollout.Good:
		return "good"
	case rollout.Failed:
		return "bad"
	case rollout.Waiting:
		return "busy"
	case rollout.Left:
	}
	return ""
}

func caseTone(p remedy.Phase) string {
	switch p {
	case remedy.Held:
		return "bad"
	case remedy.Contained:
		return "warn"
	case remedy.Remaking, remedy.Releasing:
		return "busy"
	case remedy.Closed:
		return "good"
	}
	return ""
}

func caseNext(c remedy.Case) string {
	switch c.Phase {
	case remedy.Held:
		return "Waits for a person: the policy contains no more devices of this product in an hour by itself."
	case remedy.Contained:
		return "Contained. It is made anew if the policy says so; good evidence releases it."
	case remedy.Remaking:
		return "Being made anew; then it has to prove itself."
	case remedy.Releasing:
		return "Has proven itself; waits for the device to say that it is free."
	case remedy.Closed:
		return "Over."
	}
	return ""
}

func releaseTone(s release.Status) string {
	switch s {
	case release.Published:
		return "good"
	case release.Proposed:
		return "busy"
	case release.Withdrawn, release.Refused:
		return "warn"
	}
	return ""
}

func orderTone(s factory.State) string {
	switch {
	case s == factory.Open:
		return "busy"
	case s.Void():
		return "warn"
	}
	return "good"
}

func standingTone(s device.Standing) string {
	switch s {
	case device.Done:
		return "good"
	case device.Pending, device.Delivered:
		return "busy"
	case device.Refused, device.Failed:
		return "bad"
	case device.Expired:
		return "warn"
	case device.Cancelled:
	}
	return ""
}

func badIf(n int) string {
	if n > 0 {
		return "bad"
	}
	return ""
}

func warnIf(n int) string {
	if n > 0 {
		return "warn"
	}
	return ""
}

func findingTitle(k monitor.Kind) string {
	switch k {
	case monitor.BadVerdict:
		return "Evidence is bad"
	case monitor.NoCheckin:
		return "Silent"
	case monitor.NoAttestation:
		return "Evidence is overdue"
	case monitor.NoLog:
		return "Its own log is overdue"
	case monitor.Refusals:
		return "Refused a command"
	case monitor.FailedUpdate:
		return "Update failed"
	case monitor.Unhealthy:
		return "Not healthy"
	case monitor.CloneSuspected:
		return "May be a clone"
	case monitor.EnrolRefused:
		return "Enrolment refused"
	case monitor.RecordRefused:
		return "Production record refused"
	case monitor.LogForked:
		return "Its own log forked"
	case monitor.Unwitnessed:
		return "The ledger is not witnessed"
	case monitor.LedgerBehind:
		return "The database is behind the ledger"
	case monitor.WitnessFailing:
		return "A witness fails"
	case monitor.CAEnding:
		return "A certification authority ends"
	case monitor.BundleBehind:
		return "Behind the trust bundle"
	case monitor.RolloutHalted:
		return "A rollout was halted"
	case monitor.RolloutStuck:
		return "A rollout does not get on"
	case monitor.Vulnerable:
		return "A flaw is known of what is inside"
	case monitor.BadLot:
		return "A lot of parts was recalled"
	case monitor.VouchersMany:
		return "Many vouchers"
	case monitor.VoucherGuessed:
		return "A voucher was guessed at"
	}
	return string(k)
}

func whatToDo(k monitor.Kind) string {
	switch k {
	case monitor.BadVerdict:
		return "It is contained by itself: see its case in Quarantine. Find out what changed it before you release it."
	case monitor.NoCheckin:
		return "See when it was last heard of, and whether others at its place are silent too. It closes when the device is back."
	case monitor.NoAttestation:
		return "Ask it for evidence on its page. It closes with good evidence."
	case monitor.NoLog:
		return "It calls, and keeps its log to itself: somebody may hold the log back, or cut its end off. It closes when the log comes."
	case monitor.Refusals:
		return "Read the code: a device that refuses is right unless proven otherwise. Many refusals can mean a stolen online key."
	case monitor.FailedUpdate:
		return "The device kept what it ran. See the result on its page, and pause the rollout if others fail too."
	case monitor.Unhealthy:
		return "See what it says of itself; restart it, or roll its release back."
	case monitor.CloneSuspected:
		return "Quarantine it, and find out which of the two pieces is the one you made."
	case monitor.EnrolRefused:
		return "Somebody with a factory identity was turned away: look at the order it came from."
	case monitor.RecordRefused:
		return "The station sent what cannot be true: reconcile the order, and ask the programming centre."
	case monitor.LogForked:
		return "The device was copied or set back: quarantine it and ask it for evidence."
	case monitor.Unwitnessed:
		return "Nothing new reaches devices, which run on. See what the witnesses answer; it closes when enough of them sign again."
	case monitor.LedgerBehind:
		return "Witnesses or published files have seen more than the database has: it is an old copy. Change nothing; restore the newest, or see hallmark log recover."
	case monitor.WitnessFailing:
		return "The others are enough for now. Ask its operator; it closes when it signs again."
	case monitor.CAEnding:
		return "Have another signed at a ceremony: hallmark ca request. It closes when that one is installed."
	case monitor.BundleBehind:
		return "It still believes who may not be believed any more. See what it refuses on its page; one that was away is back in a moment. It closes when it has caught up."
	case monitor.RolloutHalted:
		return "See on its page who failed, and why. Publish a mended release, and roll that out; close this when you know what it was."
	case monitor.RolloutStuck:
		return "See on its page who is waited for, and what the server's log says of it. It closes when the wave is decided."
	case monitor.Vulnerable:
		return "Release a version with the mended component, or say why this one is not exploitable. It closes when no device runs the release and it is withdrawn, or when the advisory says otherwise."
	case monitor.BadLot:
		return "List the devices that may have a part of it with hallmark supply lot devices: call them back, or say that the lot is good after all. It closes with that."
	case monitor.VouchersMany:
		return "See why so many devices lose their keys, and who vouches for them: hallmark voucher list."
	case monitor.VoucherGuessed:
		return "If the technician mistyped it, nothing is wrong: it stays good. If nobody did, find out who has the device's ID. Locked it is only when it was shown with another chip: it was found or stolen, or is at the wrong device."
	}
	return "Look at the fact that led to it."
}

func findingColumns(whom bool) []string {
	if whom {
		return []string{"What", "Whom", "What to do", "Since", ""}
	}
	return []string{"Severity", "What", "What to do", "Since", ""}
}

func problemTitle(status int) string {
	switch status {
	case http.StatusNotFound:
		return "Not found"
	case http.StatusForbidden:
		return "Not allowed"
	case http.StatusServiceUnavailable:
		return "Not available just now"
	}
	return fmt.Sprintf("Problem %d", status)
}

func needs(n int) string {
	if n == 1 {
		return "needs"
	}
	return "need"
}

// trouble is a line of what is wrong now, and where to click.
type trouble struct{ Text, Link, Tone string }

func unproven(s fleet.Summary) int {
	n := s.Verdicts["unknown"] - s.States["provisioned"]
	return max(n, 0)
}

// troubles says what is wrong now, the worst first.
func troubles(o overview) (out []trouble) {
	add := func(n int, tone, text, link string) {
		if n > 0 {
			out = append(out, trouble{Text: text, Link: link, Tone: tone})
		}
	}
	s := o.Summary
	if n := s.Verdicts["contraindicated"]; n > 0 {
		add(n, "bad", plural(n, "device")+" failed to prove what "+theyRun(n), "/devices?verdict=contraindicated")
	}
	add(s.States["suspected-clone"], "bad", plural(s.States["suspected-clone"], "device")+" may have been cloned", "/devices?state=suspected-clone")
	for _, r := range o.Rollouts {
		if r.Phase == rollout.Halted || r.Phase == rollout.Aborting {
			add(1, "bad", "Rollout "+r.Spec.ID+" is halted: "+clip(r.Reason, 120), "/rollouts/"+pathEscape(r.Spec.ID))
		}
	}
	grave := s.Severity[string(monitor.Critical)] + s.Severity[string(monitor.High)]
	add(grave, "bad", plural(grave, "grave finding")+" open", "/findings")
	for _, c := range o.Cases {
		if c.Phase == remedy.Held {
			add(1, "bad", "Devices in trouble wait for a person", "/cases")
			break
		}
	}
	add(s.States["quarantined"], "warn", plural(s.States["quarantined"], "device")+" in quarantine", "/cases")
	add(s.Findings-grave, "warn", plural(s.Findings-grave, "lesser finding")+" open", "/findings")
	add(o.Overdue, "warn", plural(o.Overdue, "certificate")+" ended without another in its place", "/certificates")
	if silent := silentFor(s, 24*time.Hour); silent > 0 {
		add(silent, "warn", plural(silent, "device")+" not heard of for a day", "/findings")
	}
	return out
}

func theyRun(n int) string {
	if n == 1 {
		return "it runs"
	}
	return "they run"
}

func worstTone(list []trouble) string {
	if len(list) == 0 {
		return "good"
	}
	for _, t := range list {
		if t.Tone == "bad" {
			return "bad"
		}
	}
	return "warn"
}

// silentFor counts those that were last seen longer ago than that.
func silentFor(s fleet.Summary, than time.Duration) (n int) {
	for _, a := range s.Seen {
		if a.Under == 0 || a.Under > than {
			n += a.Devices
		}
	}
	return n
}

func reconcileWords(o factory.Order, r factory.Reconciliation) string {
	switch {
	case r.Alarms > 0:
		return plural(int(r.Alarms), "alarm") + ": the station sent what cannot be true"
	case o.State == factory.Cancelled:
		return "Cancelled: its file never came to use"
	case o.State == factory.Abandoned:
		return "Abandoned: its station is gone, and what was not on record then never becomes a device"
	case o.State == factory.Closed:
		return "Closed: every ticket is accounted for"
	case r.Missing > 0:
		return plural(int(r.Missing), "record") + " missing"
	case !r.JobEnd:
		return "In production: the station has not ended the order"
	}
	return "Complete: it can be closed"
}

func reconcileTone(o factory.Order, r factory.Reconciliation) string {
	switch {
	case r.Alarms > 0:
		return "bad"
	case r.Missing > 0 || o.State.Void():
		return "warn"
	case o.State == factory.Open && !r.JobEnd:
		return "busy"
	}
	return "good"
}

func phaseWords(r rollout.Rollout) string {
	switch r.Phase {
	case rollout.Created:
		return "Prepared: nothing is sent before it is started"
	case rollout.Running:
		return "Running: " + strings.ToLower(waveText(r))
	case rollout.Paused:
		return "Paused: no further wave goes"
	case rollout.Halted:
		return "Halted: who confirmed the release is being sent back"
	case rollout.Aborting:
		return "Being aborted"
	case rollout.RolledBack:
		return "Halted, and rolled back"
	case rollout.Aborted:
		return "Aborted where it was"
	case rollout.Completed:
		return "Completed: every wave has proven itself"
	}
	return string(r.Phase)
}

// answerTone is how a device's own answer looks.
func answerTone(word string) string {
	if wire.Acceptable(word) {
		return "good"
	}
	return "bad"
}
