package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Groups keeps which group each device is in. Writes are durable, with their facts, when they return nil.
type Groups interface {
	// GroupDevices puts each device into the group if it is still in the one its move names, all or none; else ErrChanged.
	GroupDevices(ctx context.Context, moves []Grouping, to string, facts []ledger.Fact) error
	// GroupsOf gives the groups that the devices are in, each once: "" for those in none, unknown ones, and those of another product.
	GroupsOf(ctx context.Context, product string, devices []string) ([]string, error)
	// CommandGroups is GroupsOf the devices of a command; "" for one that has another owner since it was issued.
	CommandGroups(ctx context.Context, command string) ([]string, error)
}

// MaxGrouped bounds the devices that are put into a group at once.
const MaxGrouped = 1000

// Grouping is a device that goes from one group to another, and the Data of the fact that says so. An empty group is none.
type Grouping struct {
	Device string `json:"device"`
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason,omitempty"`
}

// Group puts devices into a group of their product, with those that are in it already; an empty group takes them out of theirs. One
// needs the right to it where they are and where they go to.
func (s *Service) Group(ctx context.Context, caller access.Caller, ids []string, group, reason string) error {
	if len(ids) == 0 || len(ids) > MaxGrouped {
		return fault.New(fault.Invalid, "group.devices", fmt.Sprintf("%d devices", len(ids)), fmt.Sprintf("name 1 to %d", MaxGrouped))
	}
	if group != "" && !access.ValidGroup(group) {
		return fault.New(fault.Invalid, "group.name", fmt.Sprintf("%.140q is no group", group),
			fmt.Sprintf("a path of up to %d names of lower-case letters, digits, '-' and '.', as eu/berlin/ward-3", access.MaxGroupDepth))
	}
	if len(reason) > 1024 {
		return fault.New(fault.Invalid, "group.reason", "the reason is longer than 1024 bytes", "shorten it")
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	now := s.cfg.Now().UTC()
	grave := s.cfg.Guard.Many(caller, ids)
	var moves []Grouping
	var facts []ledger.Fact
	allowed := map[string]bool{} // products whose devices may come into the group
	for _, id := range ids {
		d, err := s.open(ctx, caller, access.DeviceGroup, id)
		if err != nil {
			return err
		}
		if !allowed[d.Product] {
			to := access.Resource{Type: "group", ID: group, Product: d.Product, Group: group, Grave: grave}
			if err := s.cfg.Guard.Check(ctx, caller, access.DeviceGroup, to); err != nil {
				return err
			}
			allowed[d.Product] = true
		}
		if d.Group == group {
			continue
		}
		if access.OwnerOf(d.Group) != access.OwnerOf(group) {
			return fault.New(fault.Conflict, "group.owner", fmt.Sprintf("device %s is an owner's, or would become one's", id),
				"an owner gets a device by a claim, and lets it go by a transfer; its own groups are owner/<id>/…")
		}
		m := Grouping{Device: id, From: d.Group, To: group, Reason: reason}
		f, err := jsonFact(ledger.KindDeviceGrouped, now, caller.ID, id, nil, m)
		if err != nil {
			return err
		}
		moves, facts = append(moves, m), append(facts, caller.Tells(f))
	}
	if len(moves) == 0 {
		return nil
	}
	err := s.cfg.Groups.GroupDevices(ctx, moves, group, facts)
	if errors.Is(err, ErrChanged) {
		return fault.New(fault.Conflict, "group.changed", "a device was put into another group meanwhile", "look again and repeat")
	}
	return err
}

// overAll answers nil when caller may do action to every one of many devices of a product. groups tells which groups they are in; it is
// asked only about who has less than the product.
func (s *Service) overAll(ctx context.Context, caller access.Caller, action access.Action, res access.Resource, groups func() ([]string, error)) error {
	if access.Covers(caller.Scope, res.Product, "") {
		return s.cfg.Guard.Check(ctx, caller, action, res)
	}
	in, err := groups()
	if err != nil {
		return err
	}
	if res.Grave || len(in) == 0 { // a second person looks at all of it
		in = []string{common(in)}
	}
	for _, g := range in {
		res.Group = g
		if err := s.cfg.Guard.Check(ctx, caller, action, res); err != nil {
			return err
		}
	}
	return nil
}

// common is the group that all are in.
func common(groups []string) string {
	if len(groups) == 0 {
		return ""
	}
	shared := strings.Split(groups[0], "/")
	for _, g := range groups[1:] {
		parts := strings.Split(g, "/")
		n := 0
		for n < min(len(parts), len(shared)) && parts[n] == shared[n] {
			n++
		}
		shared = shared[:n]
	}
	return strings.Join(shared, "/")
}
