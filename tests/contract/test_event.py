from contract_world import Play, World, usual_plans
from watt_chain.contract.event import State
def test_flow():
    w=World()
    p=Play(w, usual_plans(w)).run(State.CLOSED)
    for h in w.homes: print(w.row(h))
    print(w.main_event())
    print(w.pairs(1))
