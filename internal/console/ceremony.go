package console

import (
	"context"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/wire"
)

// heldView is a key ceremony as the page shows it.
type heldView struct {
	Name   string
	At     time.Time
	Steps  int
	People string
}

// ceremonies gives a page of those on record, for whom may read the ledger, from behind after on; more is where to go on.
func (h *handler) ceremonies(ctx context.Context, caller access.Caller, after string) (list []heldView, more string, err error) {
	if h.cfg.Stages.Ceremonies == nil {
		return nil, "", nil
	}
	all, err := h.cfg.Stages.Ceremonies.Ceremonies(ctx, caller, after, pageSize+1)
	if err != nil {
		return nil, "", unlessDenied(err)
	}
	if len(all) > pageSize {
		all = all[:pageSize]
		more = "/certificates?held=" + queryEscape(all[pageSize-1].Digest) + "#ceremonies"
	}
	out := make([]heldView, 0, len(all))
	for _, c := range all {
		v := heldView{Name: c.Name, At: c.At, People: "unreadable"}
		if t, err := wire.OpenTranscript(c.Envelope); err == nil {
			people := make([]string, len(t.People))
			for i, p := range t.People {
				people[i] = p.Label + " (" + p.Part + ")"
			}
			v.Steps, v.People = len(t.Steps), strings.Join(people, ", ")
		}
		out = append(out, v)
	}
	return out, more, nil
}
