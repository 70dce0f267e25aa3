package server

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/parts"
	"github.com/hallmark-iot/hallmark/supply/statement"
)

// alarms makes findings of flaws that releases have.
type alarms struct{ i *Instance }

// Flawed implements supply.Alarms.
func (a alarms) Flawed(ctx context.Context, h supply.Held, t supply.Trouble) error {
	f := flawed(h, t.ID)
	f.Severity = severityOf(t)
	f.Text = fmt.Sprintf("version %s has %s inside", h.Version, strings.Join(t.Parts[:min(len(t.Parts), 5)], ", "))
	if more := len(t.Parts) - 5; more > 0 {
		f.Text += fmt.Sprintf(" and %d more", more)
	}
	f.Text += ", of which is known: " + t.ID
	if t.Summary != "" {
		f.Text += ": " + t.Summary
	}
	if len(t.Fixed) > 0 {
		f.Text += "; mended in " + strings.Join(t.Fixed[:min(len(t.Fixed), 5)], ", ")
	}
	f.Text = strings.ToValidUTF8(f.Text[:min(len(f.Text), 2000)], "")
	_, err := a.i.monitor.Raise(ctx, access.Internal("advisories"), f)
	return err
}

// Mended implements supply.Alarms.
func (a alarms) Mended(ctx context.Context, h supply.Held, trouble, reason string) error {
	return a.i.monitor.Keep(ctx, access.Internal("advisories"), flawed(h, trouble), false, reason)
}

func flawed(h supply.Held, trouble string) monitor.Finding {
	digest := hex.EncodeToString(h.Release[:])
	return monitor.Finding{
		Kind: monitor.Vulnerable, Product: h.Product, Subject: digest, Version: h.Version,
		Dedupe: string(monitor.Vulnerable) + "/" + digest + "/" + trouble,
	}
}

// severityOf follows CVSS's own words (3.1 §5, 4.0 §6). What has no score is not harmless.
func severityOf(t supply.Trouble) monitor.Severity {
	switch {
	case t.Score >= 9:
		return monitor.Critical
	case t.Score >= 7, t.Score == 0:
		return monitor.High
	case t.Score >= 4:
		return monitor.Medium
	}
	return monitor.Low
}

func (i *Instance) openSupply() (err error) {
	s := i.db.Supply()
	if i.supply, err = supply.NewService(supply.Config{Store: s, Blobs: i.blobs, Releases: s, Alarms: alarms{i}, Seal: i.sealSummary, Instance: i.cfg.Instance, Guard: i.guard}); err != nil {
		return err
	}
	i.parts, err = parts.New(parts.Config{Catalogue: i.db.Parts(), Orders: i.db.Parts(), Blobs: i.blobs, Guard: i.guard})
	return err
}

// lot keeps one finding open for a lot of parts that was recalled, and closes it when the lot is good after all.
func (i *Instance) lot(ctx context.Context, caller access.Caller, s seen) error {
	return i.judgeLot(ctx, caller, s.Subject, &s.at)
}

// lotsNamed tells of an order that says it has parts of a lot that was recalled. One fact may lead to several findings here, and so is the cause of none.
func (i *Instance) lotsNamed(ctx context.Context, caller access.Caller, s seen) error {
	var n parts.Naming
	if err := json.Unmarshal(s.Data, &n); err != nil {
		return err
	}
	for _, l := range n.Lots {
		if err := i.judgeLot(ctx, caller, l, nil); err != nil {
			return err
		}
	}
	return nil
}

func (i *Instance) judgeLot(ctx context.Context, caller access.Caller, id string, cause *ledger.Ref) error {
	l, err := i.parts.Lot(ctx, caller, id)
	if fault.KindOf(err) == fault.NotFound { // the log knows more than this database, which is a restored one
		return nil
	}
	if err != nil {
		return err
	}
	n, err := i.parts.Count(ctx, caller, id)
	if err != nil {
		return err
	}
	f := monitor.Finding{
		Kind: monitor.BadLot, Severity: monitor.High, Subject: id, Cause: cause,
		Text: fmt.Sprintf("lot %s of part %s was recalled: %s; %d devices may have a part of it: hallmark supply lot devices %s", l.Number, l.Part, l.Reason, n, id),
	}
	return i.monitor.Keep(ctx, caller, f, !l.Recalled.IsZero(), "the lot is good after all: "+l.Reason)
}

// sealSummary signs what is said of a release with the newest key for that which is here.
func (i *Instance) sealSummary(kind string, payload []byte) ([]byte, error) {
	names := i.ring.Names(keyring.Supply)
	if len(names) == 0 {
		return nil, supply.ErrNotFound
	}
	var failed error
	for _, name := range names {
		k, err := i.keys.Signer(name)
		if err == nil {
			return statement.Seal(k, kind, payload)
		}
		failed = errors.Join(failed, fmt.Errorf("key %s is in the ring, and not in the key directory of this node: restore it, or copy it from the node that made it: %w", name, err))
	}
	return nil, failed
}
