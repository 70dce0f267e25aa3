package ddi

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
)

// confirmation says whether updates are agreed to as they come.
func (h *handler) confirmation(w http.ResponseWriter, r *http.Request, p peer) error {
	links := map[string]link{}
	if p.Auto {
		links["deactivateAutoConfirm"] = h.at(p, "confirmationBase", "deactivateAutoConfirm")
	} else {
		links["activateAutoConfirm"] = h.at(p, "confirmationBase", "activateAutoConfirm")
	}
	o, err := h.cfg.Offers.Offer(r.Context(), p.caller, p.Device)
	if err != nil {
		return err
	}
	if o.Number != 0 && !o.Cancel && p.asks(o) {
		links["confirmationBase"] = h.at(p, "confirmationBase", strconv.Itoa(int(o.Number)))
	}
	return send(w, map[string]any{"autoConfirm": map[string]bool{"active": p.Auto}, "_links": links})
}

// confirm says what is to be agreed to.
func (h *handler) confirm(w http.ResponseWriter, r *http.Request, p peer) error {
	o, err := h.offered(r, p)
	if err != nil {
		return err
	}
	if o.Cancel || !p.asks(o) {
		return notNow("agree to")
	}
	d, err := h.deploymentOf(r.Context(), p, o)
	if err != nil {
		return err
	}
	return send(w, map[string]any{"id": strconv.Itoa(int(o.Number)), "confirmation": d})
}

// confirmed takes whether it is agreed to. Who declines is asked again, for they may have meant not now; but where the rollout asks, no is its answer.
func (h *handler) confirmed(w http.ResponseWriter, r *http.Request, p peer) error {
	c, err := decodeConfirmation(p.body)
	if err != nil {
		return fault.Newf(fault.Invalid, "ddi.malformed", "confirmation of %s: %w", p.Name, err).With("send a confirmation of DDI")
	}
	o, err := h.offered(r, p)
	if err != nil {
		return err
	}
	if o.Cancel || !p.mayDecline(o) {
		return notNow("agree to")
	}
	said := device.Declines
	if c.Confirmation == "confirmed" {
		said = device.Agrees
	} else if o.Note.Agreed {
		return fault.New(fault.Conflict, "offer.agreed", "it was agreed to already", "go on with the deployment")
	}
	if err := h.cfg.Offers.Answer(r.Context(), p.caller, p.Device, device.Answer{Number: o.Number, Said: said, Text: strings.Join(c.Details, "; ")}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// automatic has all updates agreed to as they come, or no more.
func (h *handler) automatic(on bool) func(http.ResponseWriter, *http.Request, peer) error {
	return func(w http.ResponseWriter, r *http.Request, p peer) error {
		if err := h.cfg.Clients.AgreesToAll(r.Context(), p.Client, on); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
}
