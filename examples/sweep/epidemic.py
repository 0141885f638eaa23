"""An SIR model, one simulated person-day at a time; the standard library is all it needs."""


def simulate(beta, days_ill, *, contacts, horizon):
    """One epidemic, by Euler steps of a quarter of a day; people are shares of one."""
    step = 0.25
    susceptible, infected, recovered = 0.999, 0.001, 0.0
    peak, peak_day = infected, 0.0
    for i in range(int(horizon / step)):
        new = contacts * beta * susceptible * infected * step
        healed = infected / days_ill * step
        susceptible -= new
        infected += new - healed
        recovered += healed
        if infected > peak:
            peak, peak_day = infected, (i + 1) * step
    return {
        "r0": round(contacts * beta * days_ill, 3),
        "peak": round(peak, 5),
        "peak_day": peak_day,
        "ever_ill": round(1 - susceptible, 5),
    }


def worst(rows):
    """The run with the highest peak of one group."""
    top = max(rows, key=lambda row: row["peak"])
    return {"beta": top["beta"], "peak": top["peak"], "peak_day": top["peak_day"]}
