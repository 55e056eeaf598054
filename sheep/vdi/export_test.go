package vdi

// The decoders of plans for the fuzz target.
func ReencodePlan(kind uint8, b []byte) ([]byte, error) {
	switch kind {
	case PlanNew:
		p, err := decodeNewPlan(b)
		return p.encode(), err
	case PlanDelete, PlanLookup:
		p, err := decodeDeletePlan(b)
		return p.encode(), err
	case PlanAttr:
		p, err := decodeAttrPlan(b)
		return p.encode(), err
	}
	p, err := decodeMade(b)
	return p.encode(), err
}
